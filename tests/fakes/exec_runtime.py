"""An ExecRuntime on this machine: real shells on real PTYs, without any sandbox around them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import struct
import termios
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime

from libs.runtime.port import (
    ExecStream,
    LogLine,
    RuntimeUnavailableError,
    TerminalSize,
    WorkspaceNotFoundError,
    WorkspaceNotRunningError,
    WorkspaceRef,
)
from tests.fakes.no_ports import NoPorts

_SHELL = ("/bin/bash", "--noprofile", "--norc", "--noediting", "-i")
# The first terminal that the leader of a session opens becomes the session's own.
_ON_TERMINAL = 'exec 0<> "$0" 1>&0 2>&0; exec "$@"'
_ENVIRONMENT = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PS1": "$ ", "TERM": "xterm", "LANG": "C.UTF-8"}


class HostExecStream:
    """A process on a PTY of this machine."""

    def __init__(self, master: int, process: asyncio.subprocess.Process) -> None:
        self._master = master
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._waiting: set[asyncio.Event] = set()

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Straight from the terminal; nothing is read ahead, so not reading pauses the process."""
        while not self._closed:
            try:
                return os.read(self._master, max_bytes)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError as error:
                # EIO: nobody holds the other end any more.
                if error.errno == errno.EIO:
                    return b""
                raise
        return b""

    async def read_stderr(self, max_bytes: int = 65536) -> bytes:
        """A terminal has one stream."""
        return b""

    async def write(self, data: bytes) -> None:
        """Waits while the terminal's input is full."""
        rest = memoryview(data)
        while rest:
            if self._closed:
                raise BrokenPipeError
            try:
                rest = rest[os.write(self._master, rest) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
            except OSError as error:
                raise BrokenPipeError from error

    def write_now(self, data: bytes) -> int:
        """Nothing: every byte goes through `write`."""
        return 0

    async def write_eof(self) -> None:
        """Ctrl-D."""
        await self.write(b"\x04")

    async def resize(self, size: TerminalSize) -> None:
        """Set the window size."""
        if not self._closed:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.cols, 0, 0))

    async def wait(self) -> int:
        """The exit code."""
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def close(self) -> None:
        """Kill the whole session."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._master)
        self._loop.remove_writer(self._master)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        os.close(self._master)
        for waiting in self._waiting:
            waiting.set()
        await self._process.wait()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the shell from outside, as a stop of its workspace does."""
        self._process.send_signal(number)

    async def _ready(self, listen: Callable[..., object], forget: Callable[[int], object]) -> None:
        ready = asyncio.Event()
        self._waiting.add(ready)
        listen(self._master, ready.set)
        try:
            await ready.wait()
        finally:
            self._waiting.discard(ready)
            if not self._closed:
                forget(self._master)


class HostExecRuntime(NoPorts):
    """Every environment runs here unless it is named in `stopped` or `missing`, or `away` is set."""

    def __init__(self) -> None:
        self.stopped: set[str] = set()
        self.missing: set[str] = set()
        self.away = False
        self.streams: list[HostExecStream] = []
        self._logs: dict[str, list[LogLine]] = {}
        self._logged = asyncio.Condition()

    async def open(self) -> None:
        """Raises RuntimeUnavailableError while `away`."""
        if self.away:
            raise RuntimeUnavailableError("The fake runtime is away.")

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
        """A shell, or `argv`."""
        await self.open()
        if ref.environment_id in self.missing:
            raise WorkspaceNotFoundError("There is no such workspace.")
        if ref.environment_id in self.stopped:
            raise WorkspaceNotRunningError("The workspace is not running.")
        master, slave = os.openpty()
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.cols, 0, 0))
        os.set_blocking(master, False)
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                _ON_TERMINAL,
                os.ttyname(slave),
                *(argv or _SHELL),
                # Held open by the child until it has opened the terminal itself: else reading would see an end.
                stdin=slave,
                env={**_ENVIRONMENT, **(env or {})},
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(slave)
        stream = HostExecStream(master, process)
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
        """What `log` was given."""
        if ref.environment_id in self.missing:
            raise WorkspaceNotFoundError("There is no such workspace.")
        lines = self._logs.setdefault(ref.environment_id, [])
        sent = len(lines)
        chosen = [line for line in lines if since is None or line.timestamp >= since]
        for line in chosen if tail is None else chosen[len(chosen) - min(tail, len(chosen)) :]:
            yield line
        while follow:
            async with self._logged:
                while len(lines) <= sent:
                    await self._logged.wait()
            for line in lines[sent:]:
                sent += 1
                yield line

    async def log(self, environment_id: str, line: LogLine) -> None:
        """The workspace's main process writes a line."""
        self._logs.setdefault(environment_id, []).append(line)
        async with self._logged:
            self._logged.notify_all()
