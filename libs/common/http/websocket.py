"""uvicorn's own WebSocket protocol, with a short way for what a terminal sends thousands of times: whole data frames.

Handshakes and their refusals, control frames, messages in parts and every mistake of a client go through uvicorn and
its parser as ever. `uvicorn --ws libs.common.http.websocket:WebSocketProtocol`, with compression off.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import MutableMapping
from typing import Any, cast
from typing import Protocol as Interface

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol, State

from libs.common.http.flight import FlightProtocol

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

_EXTENSION = "devpocket.socket"
_FINAL = 0x80
_MASKED = 0x80
_TEXT = _FINAL | Opcode.TEXT
_BINARY = _FINAL | Opcode.BINARY
# Beyond, two buffers for the kernel are cheaper than one copy.
_JOINED_BYTES = 4096
# Messages that the application has not asked for yet; beyond, the client waits.
_HIGH_WATER_BYTES = 64 * 1024
_MESSAGE_COSTS_BYTES = 64
_LONGEST_HEAD_BYTES = 14


class DirectSocket(Interface):
    """What a handler may use instead of ASGI's `send`, which runs through every middleware."""

    def send_now(self, frame: str | bytes) -> bool:
        """Send a message; False, and nothing is sent, while the client takes nothing or when it is gone."""
        ...


def direct_socket(scope: MutableMapping[str, Any]) -> DirectSocket | None:
    """Of an accepted WebSocket; None on a server that has no such thing."""
    socket: DirectSocket | None = scope.get("extensions", {}).get(_EXTENSION)
    return socket


class _Inbox(asyncio.Queue[Any]):
    """A queue for one reader. Of asyncio's own, four empty collections would cost each connection 3 KiB."""

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._waiter: asyncio.Future[None] | None = None

    def qsize(self) -> int:
        """How many messages wait."""
        return len(self._messages)

    def empty(self) -> bool:
        """Whether none does."""
        return not self._messages

    def put_nowait(self, item: Any) -> None:
        """One more at the end."""
        self._messages.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        """The first one."""
        while not self._messages:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._messages.pop(0)


class WebSocketProtocol(FlightProtocol):
    """uvicorn makes one for each connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.queue = _Inbox()
        # The beginning of a frame, and how much of it is needed to go on.
        self._rest = bytearray()
        self._wanted = 0
        self._queued_bytes = 0
        self._largest = self.config.ws_max_size + _LONGEST_HEAD_BYTES

    def handle_connect(self, event: Request) -> None:
        """The handshake came."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions = cast("dict[str, Any]", self.scope["extensions"])
            extensions[_EXTENSION] = self

    def data_received(self, data: bytes) -> None:
        """The request of the handshake, alone; then frames, of which uvicorn's parser only ever gets whole ones."""
        if not self.handshake_initiated:
            super().data_received(data)
            return
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return
            data = bytes(self._rest)
            self._rest.clear()
        start, end = 0, len(data)
        while start < end:
            head, size = _measure(data, start)
            if start + size > end and size <= self._largest:
                self._rest += memoryview(data)[start:]
                self._wanted = size
                return
            self._take(data, start, head, size)
            start += size

    def _take(self, data: bytes, start: int, head: int, size: int) -> None:
        kind = data[start]
        if (
            kind in (_BINARY, _TEXT)
            and data[start + 1] & _MASKED
            and size <= self.config.ws_max_size
            and self.conn.current_size is None
            and self._is_open()
        ):
            payload = apply_mask(data[start + head : start + size], data[start + head - 4 : start + head])
            if kind == _BINARY:
                self._queue({"type": "websocket.receive", "bytes": payload}, len(payload))
                return
            try:
                text = payload.decode()
            except UnicodeDecodeError:
                pass
            else:
                self._queue({"type": "websocket.receive", "text": text}, len(payload))
                return
        super().data_received(data[start : start + size])

    def _queue(self, message: ASGIReceiveEvent, size: int) -> None:
        self.queue.put_nowait(message)
        self._queued_bytes += size + _MESSAGE_COSTS_BYTES
        if self._queued_bytes > _HIGH_WATER_BYTES and not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    async def receive(self) -> ASGIReceiveEvent:
        """ASGI's `receive`."""
        message = await super().receive()
        if self.queue.empty():
            self._queued_bytes = 0
        return message

    async def send(self, message: ASGISendEvent) -> None:
        """ASGI's `send`."""
        if message["type"] != "websocket.send" or not self._is_open():
            await super().send(message)
            if message["type"] == "websocket.accept":
                self._forget_handshake()
            return
        data = message.get("bytes")
        frame: str | bytes = message["text"] if data is None else data  # type: ignore[assignment]
        await self.room_for(len(frame))
        await self.writable.wait()
        if not self._is_open():
            raise ClientDisconnected
        self._write(frame)

    def _forget_handshake(self) -> None:
        """Some kilobytes that would stay as long as the connection; uvicorn's parser holds the request as well."""
        del self.request, self.response
        self.conn.parser = Protocol.parse(self.conn)
        next(self.conn.parser)

    def send_now(self, frame: str | bytes) -> bool:
        """See DirectSocket."""
        if not self.writable.is_set() or not self._is_open() or not self.has_room(len(frame)):
            return False
        self._write(frame)
        return True

    def _is_open(self) -> bool:
        if self.close_sent or self.disconnected or not self.handshake_complete:
            return False
        return self.conn.state is State.OPEN

    def _write(self, frame: str | bytes) -> None:
        kind, payload = (_TEXT, frame.encode()) if isinstance(frame, str) else (_BINARY, frame)
        head = _head(kind, len(payload))
        if len(payload) <= _JOINED_BYTES:
            self.transport.write(head + payload)
        else:
            self.transport.writelines((head, payload))
        self.count(len(payload))


def _measure(data: bytes, start: int) -> tuple[int, int]:
    """Bytes of the head, and of the whole frame that begins at `start`; as far as is known, the least there can be."""
    available = len(data) - start
    if available < 2:
        return 2, 2
    second = data[start + 1]
    size = second & 0x7F
    head = 6 if second & _MASKED else 2
    if size == 126:
        head += 2
        if available < head:
            return head, head
        size = int.from_bytes(data[start + 2 : start + 4], "big")
    elif size == 127:
        head += 8
        if available < head:
            return head, head
        size = int.from_bytes(data[start + 2 : start + 10], "big")
    return head, head + size


def _head(kind: int, size: int) -> bytes:
    if size < 126:
        return bytes((kind, size))
    if size < 65536:
        return struct.pack("!BBH", kind, 126, size)
    return struct.pack("!BBQ", kind, 127, size)
