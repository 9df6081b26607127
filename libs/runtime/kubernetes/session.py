"""One process inside a pod, as the port's ExecStream."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable

import aiohttp

from libs.runtime.kubernetes.channels import (
    KILLED,
    STATUS,
    STDERR,
    STDIN,
    STDOUT,
    V5,
    Ending,
    Inbox,
    data_frame,
    end_of,
    resize_frame,
)
from libs.runtime.kubernetes.scripts import Goodbye, Session, introduced
from libs.runtime.kubernetes.sockets import ENDS, Socket
from libs.runtime.port import RuntimeUnavailableError, TerminalSize, WorkspaceNotRunningError

log = logging.getLogger(__name__)

# Receiving pauses above this many waiting bytes, which pauses the process in the end.
HIGH_WATER_BYTES = 256 * 1024
# Large writes go in pieces, so that a resize or a ping is not stuck behind a megabyte of input.
_PIECE_BYTES = 32 * 1024
_INTRODUCTION_BYTES = 4096
_START_S = 15.0
# Standard error is a pipe of its own, and may be slower than the end of the command is told.
_SETTLE_S = 0.3
# The status follows the end of the process within milliseconds where all is well.
_STATUS_S = 2.0
_CLOSE_S = 2.0
_END_OF_FILE = b"\x04"

EndSession = Callable[[Session], Awaitable[None]]


class KubernetesExecStream:
    """See `libs.runtime.port.ExecStream`. Make it with `start`."""

    def __init__(
        self,
        socket: Socket,
        mark: str,
        *,
        tty: bool,
        ping_s: float,
        dead_s: float,
        end_session: EndSession,
        on_close: Callable[[KubernetesExecStream], None],
    ) -> None:
        self._socket = socket
        self._mark = mark
        self._tty = tty
        self._ping_s, self._dead_s = ping_s, dead_s
        self._end_session = end_session
        self._on_close = on_close
        self._stdout, self._stderr = Inbox(), Inbox()
        self._room = asyncio.Event()
        self._room.set()
        self._sending = asyncio.Lock()
        self._goodbye = Goodbye(mark)
        self._status = b""
        self._input_open = True
        self._session: Session | None = None
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._heard = 0
        self._closing: asyncio.Task[None] | None = None
        self._receiver = asyncio.create_task(self._receive())
        self._pinger = asyncio.create_task(self._ping())

    async def start(self, size: TerminalSize) -> None:
        """Wait until the command is about to run. Raises WorkspaceNotRunningError or RuntimeUnavailableError."""
        try:
            async with asyncio.timeout(_START_S):
                line = await self._stdout.read_line(_INTRODUCTION_BYTES)
        except TimeoutError as error:
            await self.close()
            raise RuntimeUnavailableError("The node does not start the process.", reason="ExecFailed") from error
        self._session = introduced(self._mark, line)
        if self._session is not None:
            if self._tty:
                await self.resize(size)
            return
        await self._explain_failure(line)

    async def _explain_failure(self, line: bytes) -> None:
        words = (line + await self._drain()).decode("utf-8", "replace").strip()
        ending = Ending(self._status)
        if ending.is_missing_program:
            # No error: a stream that says so. It was not even the command's fault, the image has no shell.
            self._stdout = Inbox()
            self._stdout.feed(f"{ending.message}\n".encode())
            self._stdout.end()
            return
        await self.close()
        if not self._status or (ending.is_exit and ending.code == KILLED):
            raise WorkspaceNotRunningError("The workspace ended while the process was starting.")
        raise RuntimeUnavailableError(
            f"The process could not be started: {ending.message or words or 'no answer'}. The environment may have "
            "reached its limit of processes; stop some, or restart it.",
            reason="ExecFailed",
        )

    async def _drain(self) -> bytes:
        parts = []
        try:
            async with asyncio.timeout(_STATUS_S):
                while part := await self._stdout.read(_INTRODUCTION_BYTES):
                    parts.append(part)
        except TimeoutError:
            pass
        return b"".join(parts)

    async def read(self, max_bytes: int = 65536) -> bytes:
        """The next output; see the port."""
        return await self._take(self._stdout, max_bytes)

    async def read_stderr(self, max_bytes: int = 65536) -> bytes:
        """The next error output; see the port."""
        return b"" if self._tty else await self._take(self._stderr, max_bytes)

    async def _take(self, inbox: Inbox, max_bytes: int) -> bytes:
        data = await inbox.read(max_bytes)
        if self.buffered_bytes < HIGH_WATER_BYTES // 2:
            self._room.set()
        return data

    @property
    def buffered_bytes(self) -> int:
        """Output that was read ahead and not yet asked for; bounded."""
        return self._stdout.size + self._stderr.size

    async def write(self, data: bytes) -> None:
        """Send input; see the port."""
        rest = memoryview(data)
        while rest:
            await self._send(data_frame(STDIN, rest[:_PIECE_BYTES]))
            rest = rest[_PIECE_BYTES:]

    def write_now(self, data: bytes) -> int:
        """Nothing: the library's WebSocket can only be awaited."""
        return 0

    async def write_eof(self) -> None:
        """Half-close the input; see the port."""
        if self._tty:
            try:
                await self._send(data_frame(STDIN, _END_OF_FILE))
            except BrokenPipeError:
                return
        elif self._input_open:
            if self._socket.protocol != V5:
                raise RuntimeUnavailableError(
                    "The cluster is too old to tell a process that its input has ended.", reason="ExecFailed"
                )
            self._input_open = False
            try:
                await self._send(end_of(STDIN), is_input=False)
            except BrokenPipeError:
                return

    async def resize(self, size: TerminalSize) -> None:
        """Change the window size; see the port."""
        if self._tty:
            try:
                await self._send(resize_frame(size), is_input=False)
            except BrokenPipeError:
                return

    async def wait(self) -> int:
        """The exit code; see the port."""
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """Hang up and clean up; see the port. Goes on to its end even when the caller is cancelled."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _send(self, frame: bytes, *, is_input: bool = True) -> None:
        """One frame, waiting while the other side takes nothing."""
        if self._exit.done() or self._closing is not None or (is_input and not self._input_open):
            raise BrokenPipeError(errno.EPIPE, "the process has ended")
        try:
            async with self._sending:
                await self._socket.send_bytes(frame)
        except (aiohttp.ClientError, ConnectionError, RuntimeError) as error:
            raise BrokenPipeError(errno.EPIPE, "the process has ended") from error

    async def _receive(self) -> None:
        """Sort what arrives into its channel, until the connection ends."""
        try:
            while True:
                await self._room.wait()
                message = await self._socket.receive()
                self._heard += 1
                if message.type is aiohttp.WSMsgType.BINARY:
                    self._sort(message.data)
                elif message.type is aiohttp.WSMsgType.PING:
                    await self._socket.pong(message.data)
                elif message.type in ENDS:
                    return
        except (aiohttp.ClientError, ConnectionError, RuntimeError) as error:
            log.info("an exec stream broke: %s", error)
        finally:
            self._finish()

    def _sort(self, frame: bytes) -> None:
        channel, data = frame[0] if frame else -1, frame[1:]
        if channel == STDOUT:
            self._stdout.feed(self._goodbye.feed(data))
            if self._goodbye.code is not None:
                self._say_goodbye(self._goodbye.code)
        elif channel == STDERR:
            self._stderr.feed(data)
        elif channel == STATUS:
            self._status += data
            if _is_complete(self._status):
                self._finish()
        if self.buffered_bytes >= HIGH_WATER_BYTES and self._closing is None:
            self._room.clear()

    def _say_goodbye(self, code: int) -> None:
        """The command has ended. Its children may hold on, and its last errors may still be on their way."""
        self._stdout.end()
        if not self._exit.done():
            self._exit.set_result(code)
            asyncio.get_running_loop().call_later(_SETTLE_S, self._stderr.end)

    def _finish(self) -> None:
        """The process has ended, or nobody will ever say how; what arrived can still be read."""
        self._stdout.feed(self._goodbye.rest())
        if not self._exit.done():
            self._exit.set_result(Ending(self._status).code if self._status else KILLED)
        self._stdout.end()
        self._stderr.end()

    async def _ping(self) -> None:
        # By our own pings, not by the clock: who was held up himself has not listened either.
        silent_s = 0.0
        while not self._exit.done():
            heard = self._heard
            await asyncio.sleep(self._ping_s)
            # While we do not read, answers are not seen.
            silent_s = silent_s + self._ping_s if self._room.is_set() and self._heard == heard else 0.0
            if silent_s >= self._dead_s:
                log.warning("an exec stream is dead: the cluster does not answer")
                self._finish()
                return
            try:
                await self._socket.ping()
            except (aiohttp.ClientError, ConnectionError, RuntimeError):
                return

    async def _close(self) -> None:
        self._stdout.end(drop=True)
        self._stderr.end(drop=True)
        self._room.set()
        try:
            if self._session is not None:
                await self._end_session(self._session)
                await asyncio.wait([self._exit], timeout=_STATUS_S)
        finally:
            self._finish()
            self._pinger.cancel()
            self._receiver.cancel()
            await asyncio.gather(self._pinger, self._receiver, return_exceptions=True)
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await self._socket.close()
            except (TimeoutError, aiohttp.ClientError, OSError):
                log.debug("an exec stream did not close cleanly")
            self._on_close(self)


def _is_complete(status: bytes) -> bool:
    """The status may come in pieces; it is one JSON object."""
    return status.rstrip().endswith(b"}") and status.count(b"{") == status.count(b"}")
