"""Runs a stack of stand-ins as a process of its own, as a person would run `devpocket up`."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from libs.cli.stack.paths import PROJECT_ROOT, StackPaths
from libs.cli.stack.processes import identify, session_members
from libs.cli.stack.settings import KNOWN
from libs.cli.stack.state import Stack, load_stack
from tests.support.servers import free_port

READY = re.compile(r"DevPocket is ready at (https?://\S+)$")
_READY_TIMEOUT_S = 110.0
_STOP_TIMEOUT_S = 60.0
_POLL_S = 0.02

_Result = TypeVar("_Result")


def eventually(ask: Callable[[], _Result | None], timeout_seconds: float = 60.0) -> _Result:
    """The first answer that is not None or False; fails after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
        time.sleep(_POLL_S)
    raise AssertionError(f"did not happen within {timeout_seconds} s")


def environment() -> dict[str, str]:
    """This process's, without settings that would change a stack."""
    return {**{k: v for k, v in os.environ.items() if k not in KNOWN}, "PYTHONPATH": str(PROJECT_ROOT)}


class RunningStack:
    """A started stack of stand-ins."""

    def __init__(self, data_dir: Path, *arguments: str, port: int | None = None) -> None:
        self.data_dir = data_dir
        self.port = port or free_port()
        self.arguments = ["--port", str(self.port), "--data-dir", str(data_dir), *arguments]
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.stack", *self.arguments],
            cwd=data_dir.parent,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._new_lines: queue.Queue[str | None] = queue.Queue()
        assert self.process.stdout is not None
        threading.Thread(target=self._read, args=[self.process.stdout], daemon=True).start()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self._new_lines.put(line.rstrip("\n"))
        self._new_lines.put(None)

    def wait_for_line(self, pattern: re.Pattern[str], timeout_seconds: float = _READY_TIMEOUT_S) -> re.Match[str]:
        """Until a new line of output matches."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            line = self._new_lines.get(timeout=max(deadline - time.monotonic(), 0.01))
            if line is None:
                raise AssertionError("the stack has ended:\n" + "\n".join(self.lines))
            self.lines.append(line)
            match = pattern.search(line)
            if match is not None:
                return match

    def wait_ended(self, timeout_seconds: float = _STOP_TIMEOUT_S) -> int:
        """Its exit code; afterwards `lines` is complete."""
        code = self.process.wait(timeout_seconds)
        while (line := self._new_lines.get(timeout=30)) is not None:
            self.lines.append(line)
        return code

    @property
    def url(self) -> str:
        """Of the gateway."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> StackPaths:
        """Its files."""
        return StackPaths.of(self.data_dir)

    @property
    def stack(self) -> Stack:
        """As other commands find it."""
        found = load_stack(self.data_dir)
        assert found is not None
        return found

    def pid_of(self, name: str) -> int:
        """The pid of a process of it, now."""
        return next(item.pid for item in self.stack.state.processes if item.name == name and item.pid)

    def pids(self) -> list[int]:
        """Every process of it, nginx's workers included, but not the supervisor."""
        return [pid for item in self.stack.state.processes if item.identity for pid in session_members(item.identity)]

    def signal(self, number: signal.Signals) -> None:
        """To the supervisor."""
        self.process.send_signal(number)

    def stop(self) -> None:
        """At the end of a test, however it went."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def running(data_dir: Path, *arguments: str, port: int | None = None) -> Iterator[RunningStack]:
    """A stack that is ready."""
    stack = RunningStack(data_dir, *arguments, port=port)
    try:
        stack.wait_for_line(READY)
        yield stack
    finally:
        stack.stop()


def devpocket(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The real command."""
    argv = [sys.executable, "-m", "libs.cli.main", *arguments]
    return subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=110, check=False)


def statuses(data_dir: Path) -> dict[str, dict[str, Any]]:
    """`devpocket status --json` by process name."""
    return {row["name"]: row for row in json.loads(devpocket("status", "--json", "--data-dir", str(data_dir)).stdout)}


def all_gone(pids: list[int]) -> bool:
    """Whether none of them runs."""
    return all(identify(pid) is None for pid in pids)
