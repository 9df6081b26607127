"""A process beside a container's main one: what `exec` starts, on a PTY or on pipes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Sink = Callable[[int, bytes], Awaitable[None]]
STDOUT, STDERR = 1, 2
_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431


class ExecProcess:
    """Runs on when nobody listens any more, as in a real pod; its output is drained all the same."""

    def __init__(
        self, process: asyncio.subprocess.Process, master: int | None, stdin: bool, wanted: Sequence[int]
    ) -> None:
        self._process = process
        self._master = master
        self._stdin = stdin
        self._wanted = wanted
        self._writable = asyncio.Lock()

    async def pump(self, sink: Sink) -> int:
        """Hand all output to `sink`; returns the exit code, 128 + n for signal n."""
        try:
            if self._master is not None:
                await self._pump_terminal(self._master, sink)
            else:
                await asyncio.gather(
                    self._pump_pipe(self._process.stdout, STDOUT, sink),
                    self._pump_pipe(self._process.stderr, STDERR, sink),
                )
            code = await self._process.wait()
        finally:
            self._release()
        return 128 - code if code < 0 else code

    async def write(self, data: bytes) -> None:
        """Standard input, waiting while it is full."""
        if not self._stdin:
            return
        if self._master is None:
            assert self._process.stdin is not None
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(data)
                await self._process.stdin.drain()
            return
        async with self._writable:
            while data and self._master is not None:
                try:
                    data = data[os.write(self._master, data) :]
                except BlockingIOError:
                    await _ready(self._master, write=True)
                except OSError:
                    return

    def close_stdin(self) -> None:
        """Half-close; a terminal has no such thing and stays as it is."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def resize(self, cols: int, rows: int) -> None:
        """The window size of the terminal."""
        if self._master is not None:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def kill(self) -> None:
        """End it now; for containers without a PID namespace of their own."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _pump_terminal(self, master: int, sink: Sink) -> None:
        ended = asyncio.ensure_future(self._process.wait())
        try:
            while True:
                try:
                    data = os.read(master, 65536)
                except BlockingIOError:
                    if ended.done():
                        return
                    await _ready(master, until=ended)
                    continue
                except OSError as error:
                    if error.errno != errno.EIO:
                        raise
                    return
                if not data:
                    return
                await sink(STDOUT, data)
        finally:
            await ended

    async def _pump_pipe(self, reader: asyncio.StreamReader | None, channel: int, sink: Sink) -> None:
        assert reader is not None
        while data := await reader.read(65536):
            if channel in self._wanted:
                await sink(channel, data)

    def _release(self) -> None:
        if self._master is not None:
            os.close(self._master)
            self._master = None


async def start(
    argv: Sequence[str], env: Mapping[str, str], root: Path | None, owner: tuple[int, int], *, tty: bool,
    stdin: bool, wanted: Sequence[int], cwd: str | None = None,
) -> ExecProcess:  # fmt: skip
    """Start `argv`. `root` is where the container's own terminals are, `owner` who gets this one.

    On a terminal, `argv` makes its session itself: beside PID 1, or, without a `root`, in place of this process.
    """
    if not tty:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            cwd=cwd,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        return ExecProcess(process, None, stdin, wanted)
    master, slave = _open_terminal(root)
    try:
        if os.geteuid() == 0 and root is not None:
            os.fchown(slave, *owner)
        process = await asyncio.create_subprocess_exec(
            *argv, env=dict(env), cwd=cwd, stdin=slave, stdout=slave, stderr=slave, start_new_session=root is not None
        )
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    os.set_blocking(master, False)
    return ExecProcess(process, master, stdin, wanted)


def _open_terminal(root: Path | None) -> tuple[int, int]:
    """A pair from the container's own devpts, so that `tty` names a device that exists there."""
    if root is None:
        return pty.openpty()
    master = os.open(root / "dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    return master, fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)


async def _ready(fd: int, *, write: bool = False, until: asyncio.Future[int] | None = None) -> None:
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(fd, wake)
    try:
        both: list[asyncio.Future[Any]] = [waiter, *([until] if until else [])]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        remove(fd)
