"""`devpocket restart`, and what happens to a process that somebody else asks to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.integration.stack.harness import RunningStack, devpocket, environment, eventually, running, statuses

# Five processes start, one after the other.
_RESTART_TIMEOUT_S = 200.0
pytestmark = pytest.mark.timeout(240)
_SERVICES = ("auth", "envs", "orchestrator", "terminal")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Of stand-ins; one of them can be broken by a file beside its data."""
    with running(tmp_path_factory.mktemp("restart") / "data", "--services", "one-breakable") as started:
        yield started


def pids(stack: RunningStack) -> dict[str, int]:
    """Of the services."""
    return {name: row["pid"] for name, row in statuses(stack.data_dir).items() if name in _SERVICES}


@contextmanager
def nobody_refused(stack: RunningStack) -> Iterator[None]:
    """Meanwhile somebody asks each service, again and again, and always gets an answer."""
    over, sent = threading.Event(), 0
    wrong: list[tuple[str, int | str]] = []
    paths = ("/api/v1/auth/me", "/api/v1/environments", "/api/v1/regions", "/api/v1/terminal/sessions")

    def ask() -> None:
        nonlocal sent
        with httpx.Client(base_url=stack.url, timeout=60) as client:
            while not over.is_set():
                for path in paths:
                    try:
                        answer = client.post(path) if sent % 2 else client.get(path)
                        wrong.extend([] if answer.status_code == 200 else [(path, answer.status_code)])
                    except httpx.HTTPError as error:
                        wrong.append((path, repr(error)))
                    sent += 1
                    # The gateway has a limit for each address.
                    over.wait(0.02)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()
    assert not wrong
    assert sent > len(paths)


def restart(stack: RunningStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "libs.cli.main", "restart", *arguments, "--data-dir", str(stack.data_dir)]
    return subprocess.run(
        argv, env=environment(), capture_output=True, text=True, timeout=_RESTART_TIMEOUT_S, check=False
    )


def test_all_are_new_and_nobody_was_refused(stack: RunningStack) -> None:
    before, ports = pids(stack), {name: row["port"] for name, row in statuses(stack.data_dir).items()}
    with nobody_refused(stack):
        done = restart(stack, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["error"] is None
    assert [item["name"] for item in said["restarted"]] == ["gateway", *_SERVICES]
    assert not set(before.values()) & set(pids(stack).values())
    assert {name: row["port"] for name, row in statuses(stack.data_dir).items()} == ports
    assert {row["state"] for row in statuses(stack.data_dir).values()} == {"running"}


def test_a_signal_from_outside_has_a_successor_take_over(stack: RunningStack) -> None:
    before = pids(stack)["terminal"]
    with nobody_refused(stack):
        os.kill(before, signal.SIGTERM)
        eventually(lambda: pids(stack)["terminal"] not in {before, None} and not Path(f"/proc/{before}").exists())
    assert statuses(stack.data_dir)["terminal"]["state"] == "running"


def test_a_successor_that_does_not_start_leaves_the_old_one_in_place(stack: RunningStack) -> None:
    before = pids(stack)
    broken = stack.data_dir.parent / "broken"
    broken.touch()
    try:
        with nobody_refused(stack):
            done = restart(stack, "envs")
    finally:
        broken.unlink()
    assert done.returncode == 1
    assert "the new envs ended with code 1" in done.stderr
    assert "the old envs goes on" in done.stderr
    assert "this version is broken" in done.stderr
    assert pids(stack) == before


def test_two_restarts_at_once_and_names_that_are_none_are_refused(stack: RunningStack) -> None:
    # One that is stopped does not end: its restart goes on until we have asked for another.
    old = pids(stack)["auth"]
    os.kill(old, signal.SIGSTOP)
    try:
        first = subprocess.Popen(
            [sys.executable, "-m", "libs.cli.main", "restart", "auth", "--data-dir", str(stack.data_dir)],
            env=environment(),
        )
        second = eventually(lambda: next((done for done in [restart(stack, "nobody")] if done.returncode), None))
        while "under way" not in second.stderr:
            assert "nobody: not a part that can be restarted; those are gateway, auth, envs" in second.stderr
            assert first.poll() is None
            second = restart(stack, "nobody")
        assert second.returncode == 1
    finally:
        os.kill(old, signal.SIGCONT)
    assert first.wait(110) == 0


def test_without_a_stack_it_says_so(tmp_path: Path) -> None:
    done = devpocket("restart", "--data-dir", str(tmp_path / "none"))
    assert done.returncode == 3
    assert "no stack runs in" in done.stderr
