"""How a stack starts, ends, crashes and starts again."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient
from redis import Redis
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.sync.client import connect

from libs.cli.stack.client import DetachedStartError, start_detached
from libs.cli.stack.paths import StackPaths
from libs.cli.stack.processes import session_members
from libs.cli.stack.state import State, load_stack
from tests.integration.stack.harness import (
    READY,
    RunningStack,
    all_gone,
    devpocket,
    eventually,
    running,
    statuses,
)
from tests.support.servers import free_port


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For one stack after the other: a folder is quicker at its second start, and then must work as at its first."""
    return tmp_path_factory.mktemp("lifecycle") / "data"


class TestStop:
    def test_a_signal_ends_everything_soon_and_data_stays(self, data_dir: Path) -> None:
        for start, number in enumerate([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]):
            with running(data_dir) as stack:
                self.count_starts(stack, expected=start + 1)
                pids = stack.pids()
                assert len(pids) > 8  # nginx's workers are among them
                terminal = connect(f"ws://127.0.0.1:{stack.port}/api/v1/ws/terminal/7")
                stream = httpx.stream("GET", f"{stack.url}/api/v1/events", timeout=60)
                with terminal, stream:
                    started = time.monotonic()
                    stack.signal(number)
                    terminal.recv()
                    with pytest.raises(ConnectionClosed) as closed:
                        terminal.recv(timeout=30)
                # The service says that it goes; a connection that was cut off would have no such code.
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == CloseCode.SERVICE_RESTART
                assert stack.wait_ended() == 0
                # 10 s are what the parts get together; a busy machine is late with each.
                assert time.monotonic() - started < 30
                assert all_gone(pids)
                assert devpocket("status", "--data-dir", str(stack.data_dir)).returncode == 3
                assert {row["state"] for row in statuses(stack.data_dir).values()} == {"stopped"}

    def count_starts(self, stack: RunningStack, expected: int) -> None:
        urls = stack.stack.environment
        with MongoClient[dict[str, Any]](urls["MONGODB_URL"]) as database:
            database["kept"]["starts"].insert_one({})
            assert database["kept"]["starts"].count_documents({}) == expected
        cache = Redis.from_url(urls["REDIS_URL"])
        assert cache.incr("starts") == expected
        cache.close()

    def test_a_second_signal_kills(self, data_dir: Path) -> None:
        with running(data_dir) as stack:
            pids = stack.pids()
            # A stopped process does not react to SIGTERM, so only a kill ends it early.
            stopped = stack.pid_of("auth")
            os.kill(stopped, signal.SIGSTOP)
            started = time.monotonic()
            stack.signal(signal.SIGINT)
            stack.signal(signal.SIGINT)  # make passes it on, so at once it is the same one
            stack.wait_for_line(re.compile("stopping"))
            time.sleep(1)  # as a person would wait
            assert stack.process.poll() is None
            stack.signal(signal.SIGINT)
            eventually(lambda: all_gone([stopped]))
            # It would have had 5 s.
            assert time.monotonic() - started < 5
            assert stack.wait_ended() == 0
            assert all_gone(pids)

    def test_a_signal_while_it_starts_ends_it(self, data_dir: Path) -> None:
        stack = RunningStack(data_dir, "--services", "one-never-ready")
        try:
            stack.wait_for_line(re.compile("mongodb"))
            eventually(lambda: any(item.name == "envs" and item.pid for item in stack.stack.state.processes))
            pids = stack.pids()
            stack.signal(signal.SIGTERM)
            assert stack.wait_ended() == 0
            assert all_gone(pids)
            assert not [line for line in stack.lines if READY.search(line)]
        finally:
            stack.stop()


class TestCrash:
    def test_the_next_start_works_and_down_ends_what_another_crash_leaves(self, tmp_path: Path) -> None:
        with running(tmp_path / "data") as first:
            with MongoClient[dict[str, Any]](first.stack.environment["MONGODB_URL"]) as database:
                database["kept"]["things"].insert_many([{} for _ in range(100)])
            pids = first.pids()
            # Killed as well, where the other processes only lose their supervisor.
            os.kill(first.pid_of("mongodb"), signal.SIGKILL)
            os.kill(first.pid_of("gateway"), signal.SIGKILL)
            first.signal(signal.SIGKILL)
            first.process.wait()
            with running(tmp_path / "data", port=first.port) as second:
                with MongoClient[dict[str, Any]](second.stack.environment["MONGODB_URL"]) as database:
                    assert all_gone(pids)
                    assert database["kept"]["things"].count_documents({}) == 100
                    assert httpx.get(f"{second.url}/health/ready", timeout=30).status_code == 200
                self.crash_and_down(second)

    def crash_and_down(self, stack: RunningStack) -> None:
        # Stopped processes cannot follow their supervisor by themselves.
        left = [stack.pid_of("redis"), stack.pid_of("auth")]
        for pid in left:
            os.kill(pid, signal.SIGSTOP)
        stack.signal(signal.SIGKILL)
        stack.process.wait()
        result = devpocket("down", "--json", "--data-dir", str(stack.data_dir))
        assert result.returncode == 0
        assert set(json.loads(result.stdout)["leftovers"]) >= {"redis", "auth"}
        assert all_gone(left)


class TestFailure:
    def test_a_service_that_is_never_ready_fails_the_start(self, data_dir: Path) -> None:
        for _ in range(3):
            stack = RunningStack(data_dir, "--services", "one-never-ready", "--timeout", "6")
            assert stack.wait_ended() == 1
            output = "\n".join(stack.lines)
            if "envs was" in output:
                break
            # On a busy machine another one may be late.
        assert "envs was not ready after 6 s" in output
        assert '"database":"unhealthy"' in output  # what the service itself says is missing
        assert "| waiting for the database" in output  # its log
        assert all_gone([item.pid for item in stack.stack.state.processes if item.pid])
        assert stack.stack.state.state is State.FAILED

    def test_a_service_that_crashes_at_once_fails_the_start_at_once_and_a_foreign_process_lives(
        self, data_dir: Path
    ) -> None:
        stack = RunningStack(data_dir, "--services", "one-crashes")
        assert stack.wait_ended() == 1
        output = "\n".join(stack.lines)
        assert "envs does not start: it ended with code" in output
        assert "no_such_factory" in output
        foreign = subprocess.Popen(["sleep", "60"], start_new_session=True)
        try:
            state = json.loads(stack.paths.state.read_text())
            for process in state["processes"]:
                # The same pid in the same boot, but another start.
                process["identity"] = {**state["supervisor"], "pid": foreign.pid, "start_ticks": 1}
            stack.paths.state.write_text(json.dumps({**state, "state": "running"}))
            with running(data_dir):
                assert foreign.poll() is None
        finally:
            foreign.kill()
            foreign.wait()

    def test_a_taken_port_is_named(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            stack = RunningStack(tmp_path / "data", port=port)
            assert stack.wait_ended() == 1
        assert f"port {port} on 127.0.0.1 is in use" in stack.lines[-1]
        assert "--port" in stack.lines[-1]


class TestDetached:
    def start(self, data_dir: Path, *arguments: str) -> list[str]:
        """As `devpocket up --detach` does it, with stand-ins."""
        shown: list[str] = []
        argv = [sys.executable, "-m", "tests.integration.stack", "--in-background", "--port", str(free_port())]
        start_detached([*argv, "--data-dir", str(data_dir), *arguments], StackPaths.of(data_dir), shown.append)
        return shown

    def test_it_returns_when_ready_and_down_ends_it(self, tmp_path: Path, stack: RunningStack) -> None:
        shown = self.start(tmp_path / "data")
        found = load_stack(tmp_path / "data")
        assert found is not None
        assert shown[-1] == f"DevPocket is ready at {found.url}"
        pids = [pid for item in found.state.processes if item.identity for pid in session_members(item.identity)]
        assert httpx.get(f"{found.url}/health/ready", timeout=30).status_code == 200
        # The stack of the other tests runs beside it, untouched.
        assert httpx.get(f"{stack.url}/health/ready", timeout=30).status_code == 200
        os.kill(found.state.supervisor.pid, signal.SIGHUP)  # no terminal, so nothing to hang up
        result = devpocket("down", "--data-dir", str(tmp_path / "data"))
        assert result.returncode == 0
        assert "stopped" in result.stdout
        assert all_gone(pids)
        assert httpx.get(f"{stack.url}/health/ready", timeout=30).status_code == 200

    def test_a_failure_is_shown(self, data_dir: Path) -> None:
        with pytest.raises(DetachedStartError):
            self.start(data_dir, "--services", "one-crashes")
        found = load_stack(data_dir)
        assert found is not None
        assert found.state.state is State.FAILED
        assert "envs does not start" in str(found.state.reason)

    def test_down_is_fine_when_nothing_runs(self, tmp_path: Path) -> None:
        result = devpocket("down", "--data-dir", str(tmp_path / "none"))
        assert result.returncode == 0
        assert "nothing runs" in result.stdout
        assert devpocket("status", "--json", "--data-dir", str(tmp_path / "none")).stdout.strip() == "[]"
