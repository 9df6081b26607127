"""uvicorn's WebSocket protocol, with a bound on what a client was sent and has not yet received."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import Response
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from libs.common.http.problems import problem_response

# 20 MB/s to a phone 100 ms away. Whoever keeps what a cut may lose has to keep somewhat more than this.
IN_FLIGHT_BYTES = 2 * 1024 * 1024
# How often a client is asked how far it has come.
_ASK_EVERY_BYTES = 256 * 1024
# A goodbye, or an answer, does not wait for output that does not get on. More than the largest frame: JSON may have six
# bytes for one.
_SMALL_BYTES = 1024
_SPARE_BYTES = 512 * 1024
# uvicorn's own pings, which only ask whether somebody is there, carry four bytes.
_COUNT_BYTES = 8
_SHUTTING_DOWN = "The service restarts, please try again in a moment"
_RETRY_AFTER_S = "1"


class FlightProtocol(WebSocketsSansIOProtocol):
    """`send` waits while more than IN_FLIGHT_BYTES are on their way.

    The kernels and proxies between hold tens of megabytes, all of which a cut loses; only the client knows what came.
    It says so by itself: a ping travels behind what was sent before it, and every client answers (RFC 6455, 5.5.2).
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sent = self._asked = self._received = 0
        self._news = asyncio.Event()

    async def send(self, message: ASGISendEvent) -> None:
        """As uvicorn's; messages wait for room."""
        if message["type"] != "websocket.send":
            await super().send(message)
            return
        size = _size(message.get("bytes"), message.get("text"))
        await self.room_for(size)
        await super().send(message)
        self.count(size)

    def has_room(self, size: int) -> bool:
        """Whether a message of so many bytes may be sent now."""
        most = IN_FLIGHT_BYTES + (_SPARE_BYTES if size <= _SMALL_BYTES else 0)
        return self._sent - self._received <= most

    async def room_for(self, size: int) -> None:
        """Wait until there is, or the client is gone."""
        while not self.has_room(size) and not self.disconnected:
            self._news.clear()
            await self._news.wait()

    def count(self, size: int) -> None:
        """A message of so many bytes was sent."""
        self._sent += size
        if self._sent - self._asked >= _ASK_EVERY_BYTES and not self.transport.is_closing():
            self._ask()

    def handle_pong(self, event: Frame) -> None:
        """One of ours tells how far the client is; it may answer only the newest of several."""
        if len(event.data) != _COUNT_BYTES:
            super().handle_pong(event)
            return
        self._received = max(self._received, min(int.from_bytes(event.data, "big"), self._sent))
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for a client that is gone."""
        super().connection_lost(exc)
        self._news.set()

    def shutdown(self) -> None:
        """As uvicorn's; but a handshake under way is answered with 503, because who made it should come back."""
        if not (self.handshake_complete or self.initial_response or self.close_sent):
            self._refuse(problem_response(503, "shutting_down", _SHUTTING_DOWN, request_id=None))
        super().shutdown()

    def _refuse(self, answer: Response) -> None:
        refusal = self.conn.reject(answer.status_code, bytes(answer.body).decode())
        del refusal.headers["Content-Type"]
        refusal.headers["Content-Type"] = answer.headers["content-type"]
        refusal.headers["Retry-After"] = _RETRY_AFTER_S
        self.conn.send_response(refusal)
        self.transport.write(b"".join(self.conn.data_to_send()))
        # Nothing more is to be answered.
        self.initial_response = (answer.status_code, [], b"")

    def _ask(self) -> None:
        self._asked = self._sent
        self.conn.send_ping(self._sent.to_bytes(_COUNT_BYTES, "big"))
        self.transport.write(b"".join(self.conn.data_to_send()))


def _size(data: bytes | None, text: str | None) -> int:
    if data is not None:
        return len(data)
    return 0 if text is None else len(text) if text.isascii() else len(text.encode())
