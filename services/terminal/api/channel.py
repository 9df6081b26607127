"""A WebSocket as the sessions see it."""

from __future__ import annotations

from starlette.websockets import WebSocket, WebSocketDisconnect

from libs.common.http.websocket import direct_socket
from services.terminal.ports import ChannelClosedError
from services.terminal.protocol import Frame

_GONE = (WebSocketDisconnect, RuntimeError, OSError)


class SocketChannel:
    """The sending half. The server's own buffer is bounded: it makes `send` wait while the client takes nothing."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._direct = direct_socket(websocket.scope)

    async def send(self, frame: Frame) -> None:
        """A text or a binary frame. Raises ChannelClosedError."""
        try:
            if isinstance(frame, bytes):
                await self._websocket.send({"type": "websocket.send", "bytes": frame})
            else:
                await self._websocket.send({"type": "websocket.send", "text": frame})
        except _GONE as error:
            raise ChannelClosedError from error

    def send_now(self, frame: Frame) -> bool:
        """By the short way, which only our own protocol class has."""
        return self._direct is not None and self._direct.send_now(frame)

    async def close(self, socket_code: int, reason: str) -> None:
        """The close frame. Raises ChannelClosedError."""
        try:
            await self._websocket.close(socket_code, reason)
        except _GONE as error:
            raise ChannelClosedError from error


async def receive(websocket: WebSocket) -> Frame | None:
    """The next message of the client; None when it has gone."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        return None
    data: bytes | None = message.get("bytes")
    if data is not None:
        return data
    text: str = message["text"]
    return text
