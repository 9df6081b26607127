"""An ExecRuntime whose workspaces are this machine: processes with pipes, which is all that a holder needs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from libs.runtime.local.streams import DescriptorReader, DescriptorWriter
from libs.runtime.port import (
    ExecStream,
    LogLine,
    RuntimeUnavailableError,
    TerminalSize,
    WorkspaceNotRunningError,
    WorkspaceRef,
)
from tests.fakes.no_ports import NoPorts


class HostProcess:
    """One process with pipes. `cut` breaks the connection and leaves what it started alone."""

    def __init__(self, process: asyncio.subprocess.Process, stdin: int, stdout: int, stderr: int) -> None:
        self._process = process
        self._descriptors = [stdin, stdout, stderr]
        for fd in self._descriptors:
            os.set_blocking(fd, False)
        self._stdin = DescriptorWriter(stdin)
        self._stdout, self._stderr = DescriptorReader(stdout), DescriptorReader(stderr)

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Output."""
        return await self._stdout.read(max_bytes)

    async def read_stderr(self, max_bytes: int = 65536) -> bytes:
        """Error output."""
        return await self._stderr.read(max_bytes)

    async def write(self, data: bytes) -> None:
        """Input."""
        await self._stdin.write(data)

    def write_now(self, data: bytes) -> int:
        """Input that leaves at once."""
        return self._stdin.write_now(data)

    async def write_eof(self) -> None:
        """Half-close."""
        self._stdin.close()

    async def resize(self, size: TerminalSize) -> None:
        """No terminal, no window."""

    async def wait(self) -> int:
        """The exit code."""
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def close(self) -> None:
        """End its session."""
        if self._descriptors:
            self._stdin.close()
            self._stdout.end()
            self._stderr.end()
            for fd in self._descriptors:
                os.close(fd)
            self._descriptors = []
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def cut(self) -> None:
        """The same, from outside: a network that breaks, a node's API that restarts."""
        await self.close()


class HostProcessRuntime(NoPorts):
    """Every workspace runs here, unless `stopped`; `away` for as many calls as it says."""

    def __init__(self, home: Path, *, path: str = "/usr/bin:/bin") -> None:
        self.streams: list[HostProcess] = []
        self.stopped = False
        self.away = 0
        self._home = home
        self._environment = {"PATH": path, "HOME": str(home), "SHELL": "/bin/bash", "TERM": "xterm", "LANG": "C.UTF-8"}

    async def open(self) -> None:
        """Nothing to prepare."""

    async def close(self) -> None:
        """End every process."""
        for stream in self.streams:
            await stream.close()

    async def exec(
        self,
        ref: WorkspaceRef,
        argv: Sequence[str] | None = None,
        *,
        tty: bool = True,
        size: TerminalSize = TerminalSize(),  # noqa: B008 - frozen
        env: Mapping[str, str] | None = None,
    ) -> ExecStream:
        """`argv` with pipes; terminals are for others."""
        assert argv is not None
        assert not tty
        if self.away:
            self.away -= 1
            raise RuntimeUnavailableError("The fake machine is away.")
        if self.stopped:
            raise WorkspaceNotRunningError("The workspace is not running.")
        ends = [os.pipe() for _ in range(3)]
        theirs = [ends[0][0], ends[1][1], ends[2][1]]
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=theirs[0],
            stdout=theirs[1],
            stderr=theirs[2],
            env={**self._environment, **(env or {})},
            cwd=self._home,
            start_new_session=True,
        )
        for fd in theirs:
            os.close(fd)
        stream = HostProcess(process, ends[0][1], ends[1][0], ends[2][0])
        self.streams.append(stream)
        return stream

    async def logs(
        self,
        ref: WorkspaceRef,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: datetime | None = None,
    ) -> AsyncIterator[LogLine]:
        """None."""
        lines: list[LogLine] = []
        for line in lines:
            yield line
