"""The client's side of a WebSocket (RFC 6455) on a byte stream: an application takes us for the browser."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidState, WebSocketException
from websockets.frames import EXTERNAL_CLOSE_CODES, Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from libs.runtime.port import ByteStream
from services.terminal.preview.exchange import BrokenAnswerError

_READ_BYTES = 64 * 1024
# What a server in the same place takes by default.
_MESSAGE_BYTES = 16 * 1024 * 1024
_FROM_HANDSHAKE = ("host", "connection", "upgrade")
WENT_AWAY = 1011


@dataclass(frozen=True, slots=True)
class Goodbye:
    """How the application closed."""

    code: int
    reason: str


class Dialogue:
    """One WebSocket. One task reads, another writes. The stream is the caller's to close."""

    def __init__(self, stream: ByteStream, port: int, path: str, query: str, subprotocols: Sequence[str]) -> None:
        self._stream = stream
        uri = WebSocketURI(False, "localhost", port, path, query)
        offered = [Subprotocol(name) for name in subprotocols]
        self._protocol = ClientProtocol(uri, subprotocols=offered or None, max_size=_MESSAGE_BYTES)
        self._sending = asyncio.Lock()
        self._arrived: deque[Response | Frame] = deque()
        self._has_ended = False

    async def open(self, headers: Sequence[tuple[str, str]]) -> Response:
        """The handshake's answer; the application has refused unless its status is 101.

        Raises BrokenAnswerError, and what reading raises.
        """
        request = self._protocol.connect()
        for name, value in headers:
            if name not in _FROM_HANDSHAKE:
                request.headers[name] = value
        self._protocol.send_request(request)
        await self._flush()
        async for event in self._events():
            if isinstance(event, Response):
                if event.status_code == 101 and self._protocol.handshake_exc is not None:
                    break
                return event
        raise BrokenAnswerError(str(self._protocol.handshake_exc or "no answer"))

    @property
    def subprotocol(self) -> str | None:
        """What the application has chosen."""
        return self._protocol.subprotocol

    async def messages(self) -> AsyncIterator[str | bytes | Goodbye]:
        """What the application says, and in the end how it closed."""
        parts: list[bytes] = []
        kind = Opcode.TEXT
        async for event in self._events():
            if not isinstance(event, Frame) or event.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
                continue
            if event.opcode is not Opcode.CONT:
                kind = event.opcode
            parts.append(bytes(event.data))
            if event.fin:
                message, parts = b"".join(parts), []
                try:
                    yield message.decode() if kind is Opcode.TEXT else message
                except UnicodeDecodeError:
                    self._protocol.fail(1007)
                    await self._flush()
                    break
        received = self._protocol.close_rcvd
        if received is None:
            yield Goodbye(WENT_AWAY, "")
        else:
            yield Goodbye(
                received.code if received.code in EXTERNAL_CLOSE_CODES or received.code >= 3000 else 1000,
                received.reason,
            )

    async def say(self, message: str | bytes) -> None:
        """Raises BrokenPipeError when it has closed."""
        try:
            if isinstance(message, str):
                self._protocol.send_text(message.encode())
            else:
                self._protocol.send_binary(message)
        except (InvalidState, WebSocketException) as error:
            raise BrokenPipeError from error
        await self._flush()

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye; what may not be said over the wire goes without a code."""
        try:
            if code in EXTERNAL_CLOSE_CODES or 3000 <= code < 5000:
                self._protocol.send_close(code, reason)
            else:
                self._protocol.send_close()
            await self._flush()
        except (InvalidState, WebSocketException, BrokenPipeError):
            return

    async def _events(self) -> AsyncIterator[Response | Frame]:
        """What has arrived, the next reader going on where this one stops."""
        while True:
            while self._arrived:
                yield self._arrived.popleft()
            if self._has_ended:
                return
            data = await self._stream.read(_READ_BYTES)
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
                self._has_ended = True
            events = self._protocol.events_received()
            self._arrived.extend(event for event in events if isinstance(event, Response | Frame))
            # Pongs, and the answer to a close, for which it may not have waited.
            with suppress(BrokenPipeError):
                await self._flush()

    async def _flush(self) -> None:
        async with self._sending:
            for data in self._protocol.data_to_send():
                if data:
                    await self._stream.write(data)
                else:
                    await self._stream.write_eof()
