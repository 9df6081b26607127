"""Machines that offer less: an ordinary user with user namespaces, and no sandbox at all."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libs.runtime.local.isolation import IsolationPolicy
from libs.runtime.local.runtime import LocalRuntime

ROOT = Path(__file__).resolve().parents[3]
SOMEBODY = 65_533
Live = Callable[[str], dict[str, Any]]


def usable_interpreter() -> str | None:
    """A Python 3.11 or later that an ordinary user may run."""
    for candidate in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        # setpriv itself still may pass closed directories; what it starts may not.
        check = "import os, sys; sys.exit(sys.version_info < (3, 11) or not os.access(sys.executable, os.X_OK))"
        command = [*as_somebody(), candidate, "-c", check]
        if os.path.exists(candidate) and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def as_somebody() -> list[str]:
    return ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"] if os.geteuid() == 0 else []


@pytest.fixture
def live(runtime_dir: Path) -> Live:
    """The life of a workspace as an ordinary user; skips, with the reason, where that cannot be arranged."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("needs setpriv to become an ordinary user")
    interpreter = usable_interpreter()
    if interpreter is None:
        pytest.skip("needs a Python that an ordinary user may run")
    if any(not path.stat().st_mode & 0o001 for path in (ROOT, *ROOT.parents)):
        pytest.skip("needs a source directory that an ordinary user may read")
    if os.geteuid() == 0:
        os.chown(runtime_dir, SOMEBODY, SOMEBODY)

    def run(policy: str) -> dict[str, Any]:
        done = subprocess.run(
            [*as_somebody(), interpreter, "-m", "tests.integration.runtime.one_life", str(runtime_dir / "r"), policy],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(runtime_dir)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    return run


def check_life(life: dict[str, Any]) -> None:
    assert life["errors"] == ""
    assert life["look"][1].split()[1] == "0" * 16
    assert life["look"][3] == "abc"
    assert life["terminal"].startswith("24 80\r\n/dev/pts/")
    assert (life["code"], life["left"], life["kept"]) == (5, 0, "kept\n")
    assert life["port"] == [True, "hello"]
    assert life["memory"] > 0
    assert (life["leftovers"], life["files"]) == ([], 0)


def test_an_ordinary_user_makes_sandboxes_with_user_namespaces(live: Live) -> None:
    life = live("require")
    if "unavailable" in life:
        assert "user namespaces" in life["unavailable"]
        pytest.skip(f"user namespaces are closed here: {life['unavailable']}")
    check_life(life)
    assert life["look"][0] == "1000"
    assert int(life["look"][2]) < 10


def test_an_ordinary_user_without_sandboxes(live: Live) -> None:
    life = live("none")
    check_life(life)
    assert life["look"][0] == str(SOMEBODY if os.geteuid() == 0 else os.geteuid())


async def test_no_sandbox_is_said_loudly(runtime_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    runtime = LocalRuntime(runtime_dir, IsolationPolicy.NONE)
    with caplog.at_level(logging.WARNING):
        await runtime.open()
    await runtime.close()
    assert any("NO SANDBOX" in record.getMessage() for record in caplog.records)
