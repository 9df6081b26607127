"""One process inside a workspace, as the port's ExecStream."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import termios
from collections.abc import Awaitable, Callable

from libs.runtime.local.enter import Entered
from libs.runtime.local.members import end_session
from libs.runtime.local.processes import ProcessInfo
from libs.runtime.local.streams import DescriptorReader, DescriptorWriter
from libs.runtime.port import RuntimeUnavailableError, TerminalSize, WorkspaceNotRunningError

_START_SECONDS = 10.0
_KILL_SECONDS = 2.0
# After the process has ended, its children may still hold its pipes or terminal (the kernel tells a terminal's master
# nothing before they let go); output that is on its way arrives within this.
_SETTLE_SECONDS = 0.3

RunInThread = Callable[..., Awaitable[object]]


class LocalExecStream:
    """See `libs.runtime.port.ExecStream`. Make it with `start`."""

    def __init__(
        self,
        environment_id: str,
        entered: Entered,
        run_in_thread: RunInThread,
        on_close: Callable[[LocalExecStream], None],
    ) -> None:
        self._environment_id = environment_id
        self._entered = entered
        self._run = run_in_thread
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._tty = entered.stderr < 0
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._closing: asyncio.Task[None] | None = None
        self._leader: ProcessInfo | None = None
        self._stdout = DescriptorReader(entered.stdout)
        self._stderr = None if self._tty else DescriptorReader(entered.stderr)
        self._stdin = DescriptorWriter(entered.stdin)
        self._stdin_open = True
        self._loop.add_reader(entered.handle, self._on_exit)

    async def start(self) -> None:
        """Wait until the command is about to run. Raises WorkspaceNotRunningError or RuntimeUnavailableError."""
        entered = self._entered
        readable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(entered.status, _settle_future, readable)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await readable
            self._leader = entered.leader()
        except TimeoutError:
            pass
        finally:
            self._loop.remove_reader(entered.status)
            os.close(entered.status)
        if self._leader is not None:
            entered.anchor.release()
            return
        await self._explain_failure()

    async def _explain_failure(self) -> None:
        ended = select.poll()
        ended.register(self._entered.anchor.init_handle, select.POLLIN)
        gone = bool(ended.poll(0))
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._entered.handle, signal.SIGKILL)
        await self._exit
        words = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                words = await (self._stderr or self._stdout).read(500)
        self._entered.anchor.release()
        await self.close()
        if gone:
            raise WorkspaceNotRunningError("The workspace ended while the process was starting.")
        raise RuntimeUnavailableError(
            f"The process could not be started: {words.decode(errors='replace').strip() or 'no answer'}. "
            "The environment may have reached its limit of processes; stop some, or restart it.",
            reason="ExecFailed",
        )

    async def read(self, max_bytes: int = 65536) -> bytes:
        """The next output; see the port."""
        return await self._stdout.read(max_bytes)

    async def read_stderr(self, max_bytes: int = 65536) -> bytes:
        """The next error output; see the port."""
        return b"" if self._stderr is None else await self._stderr.read(max_bytes)

    @property
    def buffered_bytes(self) -> int:
        """Output that was read ahead and not yet asked for; bounded."""
        return self._stdout.buffered_bytes + (self._stderr.buffered_bytes if self._stderr else 0)

    async def write(self, data: bytes) -> None:
        """Send input; see the port."""
        if self._exit.done():  # a terminal's master would still take it
            raise BrokenPipeError(errno.EPIPE, "the process has ended")
        await self._stdin.write(data)

    def write_now(self, data: bytes) -> int:
        """Send what can be sent at once; see the port."""
        if self._exit.done():  # as in `write`
            raise BrokenPipeError(errno.EPIPE, "the process has ended")
        return self._stdin.write_now(data)

    async def write_eof(self) -> None:
        """Half-close the input; see the port."""
        if self._tty:
            with contextlib.suppress(OSError, BrokenPipeError):
                await self._stdin.write(termios.tcgetattr(self._entered.stdin)[6][termios.VEOF])
        elif self._stdin_open:
            await self._stdin.drain()
            self._close_stdin()

    async def resize(self, size: TerminalSize) -> None:
        """Change the window size; see the port."""
        if self._tty and self._closing is None:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._entered.stdin, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.cols, 0, 0))

    async def wait(self) -> int:
        """The exit code; see the port."""
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """Hang up and clean up; see the port. Goes on to its end even when the caller is cancelled."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._entered.handle)
        os.close(self._entered.handle)
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(self._entered.pid, 0)[1])
        except ChildProcessError:  # somebody else in this process reaps every child
            code = 255
        self._entered.handle = -1
        self._exit.set_result(code if code >= 0 else 128 - code)
        self._loop.call_later(_SETTLE_SECONDS, self._settle)

    def _settle(self) -> None:
        if self._closing is not None:
            return
        readers = [reader for reader in (self._stdout, self._stderr) if reader is not None]
        # All of them: one that is paused still has output to give, and is asked again later.
        ended = [reader.end_if_idle() for reader in readers]
        if not all(ended):
            self._loop.call_later(_SETTLE_SECONDS, self._settle)

    def _close_stdin(self) -> None:
        if self._stdin_open:
            self._stdin_open = False
            self._stdin.close()
            if not self._tty:
                os.close(self._entered.stdin)

    async def _close(self) -> None:
        # Closing a terminal's master makes the kernel send SIGHUP to its session.
        self._close_stdin()
        for reader, fd in ((self._stdout, self._entered.stdout), (self._stderr, self._entered.stderr)):
            if reader is not None:
                reader.end()
                os.close(fd)
        try:
            if self._leader is not None:
                leader = self._leader
                await self._run(lambda: end_session(self._environment_id, self._entered.run, leader))
            if self._entered.handle >= 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_KILL_SECONDS):
                        await asyncio.shield(self._exit)
            if self._entered.handle >= 0:
                signal.pidfd_send_signal(self._entered.handle, signal.SIGKILL)
                await self._exit
        finally:
            self._on_close(self)


def _settle_future(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
