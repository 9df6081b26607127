"""Our WebSocket protocol answers as uvicorn's does, however the network cuts what comes; and it holds back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from libs.common.http.flight import IN_FLIGHT_BYTES
from libs.common.http.websocket import WebSocketProtocol, direct_socket
from tests.support.app import eventually, served

_LARGEST = 100_000
_END = Frame(Opcode.CLOSE, b"\x03\xe8")
_SMALL = Frame(Opcode.BINARY, b"x")

App = Callable[[Any, Any, Any], Awaitable[None]]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """What comes goes back."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


@asynccontextmanager
async def serving(app: App, protocol: type[asyncio.Protocol]) -> AsyncIterator[int]:
    """Gives the port."""
    async with served(app, ws=protocol, ws_max_size=_LARGEST, ws_per_message_deflate=False) as url:
        yield int(url.rpartition(":")[2])


class Client:
    """Sends bytes as they are given, and reads frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._reader = reader
        self._protocol = ClientProtocol(parse_uri("ws://localhost/"), max_size=None)
        self._protocol.send_request(self._protocol.connect())
        writer.writelines(self._protocol.data_to_send())
        self._events: list[Frame | Response] = []

    async def event(self) -> Frame | Response | None:
        """The next one; None at the end."""
        while not self._events:
            data = await self._reader.read(65536)
            if not data:
                return None
            self._protocol.receive_data(data)
            self._events += self._protocol.events_received()  # type: ignore[arg-type]
        return self._events.pop(0)

    async def to_the_end(self) -> list[Frame]:
        """All frames but pings, which are answered."""
        frames: list[Frame] = []
        while isinstance(event := await self.event(), Frame):
            if event.opcode is not Opcode.PING:
                frames.append(event)
            self.writer.writelines(self._protocol.data_to_send())
        return frames


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    """With the handshake done."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        client = Client(reader, writer)
        assert isinstance(await client.event(), Response)
        yield client
    finally:
        writer.close()


async def answers(port: int, sent: bytes, last: bytes, piece: int) -> tuple[list[Frame], list[Frame]]:
    """Data and control frames that come back; a pong may overtake data."""
    async with connected(port) as client:
        for start in range(0, len(sent), piece):
            client.writer.write(sent[start : start + piece])
            await asyncio.sleep(0)
        client.writer.write(last)
        async with asyncio.timeout(20):
            frames = await client.to_the_end()
    data = [frame for frame in frames if frame.opcode in (Opcode.TEXT, Opcode.BINARY)]
    return data, [frame for frame in frames if frame not in data]


def masked(*frames: Frame) -> bytes:
    """As a client sends them."""
    return b"".join(frame.serialize(mask=True) for frame in frames)


# What comes in pieces, and what then comes at once: a server that has closed resets a connection on which more comes.
_CONVERSATIONS = {
    "data of all sizes": (
        masked(
            *(Frame(Opcode.BINARY, b"b" * size) for size in (0, 1, 125, 126, 65_535, 65_536, _LARGEST)),
            Frame(Opcode.TEXT, "grüße 🙂".encode()),
        ),
        masked(_END),
    ),
    "parts with a ping between": (
        masked(
            Frame(Opcode.TEXT, "grü".encode()[:3], fin=False),
            Frame(Opcode.PING, b"p"),
            Frame(Opcode.CONT, "grü".encode()[3:], fin=False),
            Frame(Opcode.CONT, b"en"),
            _SMALL,
        ),
        masked(_END),
    ),
    "a message inside another": (masked(Frame(Opcode.TEXT, b"a", fin=False)), masked(_SMALL)),
    "the end of nothing": (masked(_SMALL), masked(Frame(Opcode.CONT, b"a"))),
    "no UTF-8": (masked(_SMALL), masked(Frame(Opcode.TEXT, b"\xff"))),
    "too large": (masked(_SMALL), masked(Frame(Opcode.BINARY, bytes(_LARGEST + 1)))[:14]),
    "far too large": (masked(_SMALL), masked(Frame(Opcode.BINARY, bytes(30 * _LARGEST)))[:1000]),
    "too large in parts": (masked(Frame(Opcode.BINARY, bytes(_LARGEST), fin=False)), masked(Frame(Opcode.CONT, b"1"))),
    "no mask": (masked(_SMALL), _SMALL.serialize(mask=False)),
    "a reserved bit": (masked(_SMALL), b"\xc2\x81\0\0\0\0x"),
    "an unknown kind": (masked(_SMALL), b"\x83\x80\0\0\0\0"),
    "data and the end at once": (b"", masked(_SMALL, _SMALL, _END)),
}


@pytest.mark.parametrize("name", _CONVERSATIONS)
async def test_it_answers_as_uvicorn_does(name: str) -> None:
    sent, last = _CONVERSATIONS[name]
    async with serving(echo, WebSocketProtocol) as our_port, serving(echo, WebSocketsSansIOProtocol) as their_port:
        for piece in (1, 7, 4999, 1_000_000):
            if len(sent) / piece < 2_000:
                ours = await answers(our_port, sent, last, piece)
                assert ours == await answers(their_port, sent, last, piece)
                assert ours[1], "every conversation ends with a close frame"


async def test_what_leaves_at_once_keeps_its_order_and_stops_when_the_client_takes_nothing() -> None:
    sent: list[bytes] = []
    last = b"waited" * 1000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        socket = direct_socket(scope)
        assert socket is not None
        while socket.send_now(block := len(sent).to_bytes(2, "big") * 20_000):
            sent.append(block)
        await send({"type": "websocket.send", "bytes": last})
        sent.append(last)
        await send({"type": "websocket.close"})
        assert not socket.send_now(b"after the end")

    async with serving(app, WebSocketProtocol) as port, connected(port) as client:

        async def holds_back() -> bool:
            return bool(sent) and sent[-1] != last

        await eventually(holds_back)
        async with asyncio.timeout(20):
            *frames, close = await client.to_the_end()

    assert [frame.data for frame in frames] == sent
    assert close.opcode == Opcode.CLOSE
    assert sum(map(len, sent)) < IN_FLIGHT_BYTES + 100_000


async def test_messages_that_nobody_takes_stay_with_the_client() -> None:
    go_on = asyncio.Event()
    taken: list[int] = []
    waiting: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        waiting.append(direct_socket(scope))
        await go_on.wait()
        while (message := await receive())["type"] == "websocket.receive":
            taken.append(len(message["bytes"]))

    async with serving(app, WebSocketProtocol) as port, connected(port) as client:
        for size in range(3000):
            client.writer.write(masked(Frame(Opcode.BINARY, bytes(5_000 + size))))

        async def is_full() -> bool:
            return bool(waiting) and waiting[0].read_paused

        async def came() -> bool:
            return len(taken) == 3000

        await eventually(is_full)
        # What one read of the socket gives, and no more.
        assert waiting[0].queue.qsize() < 200
        go_on.set()
        await eventually(came)

    assert taken == [5_000 + size for size in range(3000)]
