"""A real stack for tests: `devpocket up` on a folder and a port of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from libs.cli.stack.client import status_of
from libs.cli.stack.state import load_stack
from tests.support.servers import free_port

_UP_TIMEOUT_S = 120.0
_DOWN_TIMEOUT_S = 90.0
_POLL_S = 0.1
_DEVPOCKET = str(Path(sys.executable).with_name("devpocket"))


class LocalStack:
    """Starts, stops and hurts one stack. `settings` are environment variables for it."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = {"RATE_LIMIT_GLOBAL": "", "RATE_LIMIT_AUTH": "", "PASSWORD_HASH_COST": "4", **settings}

    def command(self, *arguments: str, timeout_s: float = _UP_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """`devpocket ARGUMENTS --data-dir …`, its output captured."""
        argv = self._argv(*arguments)
        environment = self._environment()
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, env=environment, check=False)

    def _argv(self, *arguments: str) -> list[str]:
        return [_DEVPOCKET, *arguments, "--data-dir", str(self.data_dir)]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self._settings}

    def up(self, *options: str) -> str:
        """Start in the background; what it printed. Raises RuntimeError with it when it fails."""
        done = self.command("up", "--detach", "--port", str(self.port), *options)
        if done.returncode != 0:
            raise RuntimeError(f"devpocket up failed:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    @contextmanager
    def attached(self) -> Iterator[subprocess.Popen[str]]:
        """`devpocket up` as it runs in a terminal, once it says that it is ready; killed if it then still runs."""
        argv = self._argv("up", "--port", str(self.port))
        pipe, both = subprocess.PIPE, subprocess.STDOUT
        with subprocess.Popen(argv, stdout=pipe, stderr=both, text=True, env=self._environment()) as process:
            try:
                assert process.stdout is not None
                lines = []
                for line in process.stdout:
                    lines.append(line)
                    if "DevPocket is ready" in line:
                        break
                assert lines[-1].strip() == f"DevPocket is ready at {self.url}", "".join(lines)
                yield process
            finally:
                process.kill()

    def down(self) -> None:
        """Stop it. Raises RuntimeError when something is left."""
        done = self.command("down", timeout_s=_DOWN_TIMEOUT_S)
        if done.returncode != 0:
            raise RuntimeError(f"devpocket down failed:\n{done.stdout}\n{done.stderr}")

    def status(self) -> list[dict[str, Any]]:
        """As `devpocket status --json` says it, without a process for every look. Empty before the first start."""
        stack = load_stack(self.data_dir)
        return [asdict(row) for row in status_of(stack)] if stack is not None else []

    def wait_until(self, wanted: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Until `status` is as wanted. Raises TimeoutError."""
        deadline = time.monotonic() + _UP_TIMEOUT_S
        while not wanted(self.status()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the stack is {self.status()}")
            time.sleep(_POLL_S)

    def pid_of(self, name: str) -> int:
        """The process `name` of `devpocket status`."""
        return int(next(row["pid"] for row in self.status() if row["name"] == name))

    def processes(self) -> list[psutil.Process]:
        """Everything alive that belongs to this stack, sandboxes included: its words or files name the data folder."""
        found = {row["pid"] for row in self.status() if row["pid"] is not None}
        state = json.loads((self.data_dir / "stack.json").read_text())
        found |= {state["supervisor"]["pid"]}
        runtime = self.data_dir / "runtime"
        for process in psutil.process_iter():
            try:
                paths = [process.cwd(), *process.cmdline(), *(file.path for file in process.open_files())]
            except psutil.Error:
                continue
            if any(str(path).startswith((str(runtime), str(self.data_dir))) for path in paths):
                found.add(process.pid)
        unique = {process.pid: process for pid in found for process in family(pid) if process.pid != os.getpid()}
        return [process for process in unique.values() if _runs(process)]

    def kill_everything(self) -> None:
        """As a power cut would, as far as processes go."""
        for process in self.processes():
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it; empty when it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _runs(process: psutil.Process) -> bool:
    """A zombie has ended; when its parent looks is not ours to say."""
    try:
        status: str = process.status()
    except psutil.NoSuchProcess:
        return False
    return status != psutil.STATUS_ZOMBIE
