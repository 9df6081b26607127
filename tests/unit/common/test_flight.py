"""How much may be on its way to a WebSocket client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from libs.common.http.flight import IN_FLIGHT_BYTES, FlightProtocol
from tests.support.app import eventually

_MESSAGE = b"x" * 65_536


class Network(asyncio.Transport):
    """Takes everything, and shows it to a client when that asks."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Conversation:
    """A server that sends without end, and a client that answers pings when it is told to."""

    def __init__(self) -> None:
        self.sent = 0
        self.has_ended = False
        self.network = Network()
        config = uvicorn.Config(
            self._flood, interface="asgi3", ws=FlightProtocol, log_config=None, ws_per_message_deflate=False
        )
        config.load()
        self.server = FlightProtocol(config, ServerState(), {}, asyncio.get_running_loop())
        self.client = ClientProtocol(parse_uri("ws://test/"), max_size=None)
        self.server.connection_made(self.network)
        self.client.send_request(self.client.connect())
        self.talk()

    async def _flood(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
            await send({"type": "websocket.accept"})
            while not self.server.disconnected:
                await send({"type": "websocket.send", "bytes": _MESSAGE})
                self.sent += len(_MESSAGE)
                await asyncio.sleep(0)
        finally:
            self.has_ended = True

    def receive(self) -> list[bytes]:
        """The client takes what was written: the pings among it."""
        for data in self.network.written:
            self.client.receive_data(data)
        self.network.written.clear()
        events = self.client.events_received()
        return [bytes(event.data) for event in events if isinstance(event, Frame) and event.opcode is Opcode.PING]

    def talk(self) -> None:
        """What the client has to say reaches the server."""
        for data in self.client.data_to_send():
            self.server.data_received(data)

    async def has_stalled(self) -> bool:
        before = self.sent
        for _ in range(200):
            await asyncio.sleep(0)
        return self.sent == before > 0


@pytest.fixture
async def conversation() -> AsyncIterator[Conversation]:
    talking = Conversation()
    yield talking
    if not talking.server.disconnected:
        talking.server.connection_lost(None)


async def test_no_more_is_sent_than_may_be_on_its_way_until_the_client_has_it(conversation: Conversation) -> None:
    await eventually(conversation.has_stalled)
    assert IN_FLIGHT_BYTES < conversation.sent <= IN_FLIGHT_BYTES + len(_MESSAGE)
    assert conversation.receive()
    conversation.talk()
    first = conversation.sent
    await eventually(conversation.has_stalled)
    assert first < conversation.sent <= first + IN_FLIGHT_BYTES + len(_MESSAGE)


async def test_the_newest_answer_is_enough(conversation: Conversation) -> None:
    await eventually(conversation.has_stalled)
    pings = conversation.receive()
    assert len(pings) > 5
    list(conversation.client.data_to_send())
    before = conversation.sent
    conversation.client.send_pong(pings[-1])
    conversation.talk()
    await eventually(conversation.has_stalled)
    assert conversation.sent > before + IN_FLIGHT_BYTES // 2


async def test_who_claims_more_than_was_sent_gains_nothing_by_it(conversation: Conversation) -> None:
    await eventually(conversation.has_stalled)
    conversation.receive()
    list(conversation.client.data_to_send())
    before = conversation.sent
    conversation.client.send_pong(b"\xff" * 8)
    conversation.talk()
    await eventually(conversation.has_stalled)
    assert conversation.sent <= before + IN_FLIGHT_BYTES + len(_MESSAGE)


async def test_a_goodbye_does_not_wait_but_many_do(conversation: Conversation) -> None:
    await eventually(conversation.has_stalled)
    for _ in range(20):
        async with asyncio.timeout(60):
            await conversation.server.send({"type": "websocket.send", "text": "x" * 1000})
    waiting = asyncio.ensure_future(_many(conversation))
    await eventually(conversation.has_stalled)
    assert not waiting.done()
    waiting.cancel()


async def _many(conversation: Conversation) -> None:
    for _ in range(1000):
        await conversation.server.send({"type": "websocket.send", "text": "x" * 1000})


async def test_nobody_waits_for_a_client_that_is_gone(conversation: Conversation) -> None:
    await eventually(conversation.has_stalled)
    conversation.server.connection_lost(None)

    async def has_ended() -> bool:
        return conversation.has_ended

    await eventually(has_ended)


async def test_a_handshake_under_way_at_the_end_is_asked_to_come_back() -> None:
    asked = asyncio.Event()

    async def undecided(scope: Any, receive: Any, send: Any) -> None:
        asked.set()
        await asyncio.sleep(3600)

    network = Network()
    config = uvicorn.Config(undecided, interface="asgi3", ws=FlightProtocol, log_config=None)
    config.load()
    server = FlightProtocol(config, ServerState(), {}, asyncio.get_running_loop())
    client = ClientProtocol(parse_uri("ws://test/"))
    server.connection_made(network)
    client.send_request(client.connect())
    for data in client.data_to_send():
        server.data_received(data)
    await asked.wait()
    server.shutdown()
    for data in network.written:
        client.receive_data(data)
    (answer,) = client.events_received()
    assert isinstance(answer, Response)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert json.loads(answer.body or b"")["code"] == "shutting_down"
    server.connection_lost(None)
