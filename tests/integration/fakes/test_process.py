"""The fake cluster as a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from tests.integration.fakes.talk import Plain, eventually, pod

PODS = "/api/v1/namespaces/default/pods"


async def test_it_serves_a_kubeconfig_and_takes_its_pods_with_it(tmp_path: Path) -> None:
    config = tmp_path / "kubeconfig"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.kube", "--kubeconfig-out", str(config), "--image", "mine:1"),
        cwd=Path(__file__).parents[3],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        assert line.startswith(b"fake cluster ready at http://127.0.0.1:")
        assert config.stat().st_mode & 0o077 == 0
        found = json.loads(config.read_text())
        server, token = found["clusters"][0]["cluster"]["server"], found["users"][0]["user"]["token"]
        async with Plain(server, token) as talk:
            marker = f"sleep 31{process.pid}"
            body = pod(command=["sh", "-c", f"{marker}; true"], container={"image": "mine:1"})
            await eventually(lambda: talk.call("POST", PODS, body), lambda answer: answer[0] in (201, 409))
            await eventually(lambda: talk.call("GET", f"{PODS}/p"), lambda a: a[1]["status"]["phase"] == "Running")
            assert _runs(marker)
            assert await talk.call("POST", "/fake/drop_watches") == (200, {})
            assert (await talk.call("POST", "/fake/evict", {"pod": "p"}))[0] == 400
            assert (await talk.call("POST", "/fake/stop"))[0] == 404
            await talk.call("POST", "/fake/faults", {"rate": 1.0, "kinds": ["503"]})
            assert (await talk.call("GET", PODS))[0] == 503
            assert await talk.call("POST", "/fake/faults", {}) == (200, {"injected": {"503": 1}})
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    assert not _runs(marker)


def _runs(words: str) -> bool:
    """Whether a process with this command line lives."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if words in (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"):
                    return True
            except OSError:
                continue
    return False
