"""One connection to a port of a pod: pods/portforward over WebSocket, `v4.channel.k8s.io`.

Channel 0 carries bytes both ways, channel 1 what went wrong; each begins with the port's number. The node answers the
upgrade before it has connected, so a refusal arrives on channel 1. There is no half-close: the end of either side is
the end of the WebSocket.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable

import aiohttp

from libs.runtime.kubernetes.sockets import ENDS, Socket
from libs.runtime.port import PortClosedError

log = logging.getLogger(__name__)

_DATA, _ERROR = 0, 1
_PIECE_BYTES = 32 * 1024
_CLOSE_S = 2.0
_REFUSALS = ("connection refused", "failed to connect")


class KubernetesByteStream:
    """See `libs.runtime.port.ByteStream`. Reads nothing ahead: the socket's bounded buffer pauses the program."""

    def __init__(
        self,
        socket: Socket,
        port: int,
        *,
        ping_s: float,
        dead_s: float,
        on_close: Callable[[KubernetesByteStream], None],
    ) -> None:
        self._socket = socket
        self._port = port
        self._ping_s, self._dead_s = ping_s, dead_s
        self._on_close = on_close
        self._introduced: set[int] = set()
        self._rest = b""
        self._has_ended = False
        self._is_reading = False
        self._heard = 0
        self._pinger = asyncio.create_task(self._ping())

    async def read(self, max_bytes: int = 65536) -> bytes:
        """See the port."""
        while not self._rest and not self._has_ended:
            self._is_reading = True
            try:
                message = await self._socket.receive()
            finally:
                self._is_reading = False
            self._heard += 1
            await self._take(message)
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    async def write(self, data: bytes) -> None:
        """See the port."""
        rest = memoryview(data)
        while rest:
            if self._has_ended:
                raise BrokenPipeError(errno.EPIPE, "the program has closed the connection")
            try:
                await self._socket.send_bytes(bytes([_DATA]) + rest[:_PIECE_BYTES])
            except (aiohttp.ClientError, ConnectionError, RuntimeError) as error:
                raise BrokenPipeError(errno.EPIPE, "the program has closed the connection") from error
            rest = rest[_PIECE_BYTES:]

    async def write_eof(self) -> None:
        """The protocol has no word for it."""

    async def close(self) -> None:
        """See the port."""
        self._has_ended = True
        self._pinger.cancel()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._socket.close()
        except (TimeoutError, aiohttp.ClientError, OSError):
            log.debug("a forwarded connection did not close cleanly")
        finally:
            self._on_close(self)

    async def _take(self, message: aiohttp.WSMessage) -> None:
        if message.type is aiohttp.WSMsgType.PING:
            await self._socket.pong(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY and message.data:
            self._sort(message.data[0], message.data[1:])
        elif message.type is aiohttp.WSMsgType.CLOSE:
            self._has_ended = True
        elif message.type in ENDS and not self._has_ended:
            # Without a goodbye it is not the program's end.
            self._fail("the connection to the cluster broke")

    def _sort(self, channel: int, data: bytes) -> None:
        if channel not in self._introduced:
            if channel not in {_DATA, _ERROR} or int.from_bytes(data, "little") != self._port:
                self._fail("the cluster began the connection with something else than the port")
            self._introduced.add(channel)
        elif channel == _DATA:
            self._rest = data
        elif data:
            words = data.decode("utf-8", "replace")
            if any(refusal in words for refusal in _REFUSALS):
                self._has_ended = True
                raise PortClosedError(f"Nothing listens at port {self._port}.")
            self._fail(words)

    def _fail(self, words: str) -> None:
        self._has_ended = True
        raise ConnectionResetError(errno.ECONNRESET, words)

    async def _ping(self) -> None:
        """Proxies cut silent connections. Answers are seen only while somebody reads."""
        # By our own pings, as for an exec stream.
        silent_s = 0.0
        while not self._has_ended:
            heard = self._heard
            await asyncio.sleep(self._ping_s)
            silent_s = silent_s + self._ping_s if self._is_reading and self._heard == heard else 0.0
            try:
                if silent_s >= self._dead_s:
                    log.warning("a forwarded connection is dead: the cluster does not answer")
                    await self._socket.close()
                    return
                await self._socket.ping()
            except (aiohttp.ClientError, ConnectionError, RuntimeError):
                return
