"""Output that leaves at once, and output that has to wait for the sender, come in one order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from libs.common.contracts.identity import Plan
from libs.runtime.holder.inside.ring import Ring
from services.terminal.domain import Caller, Mode
from services.terminal.protocol import BinaryCodec, Codec, Frame, JsonCodec
from services.terminal.sessions.attachment import Attachment

_FRAME_BYTES = 64 * 1024


class Source:
    """A shell's output."""

    def __init__(self) -> None:
        self.ring = Ring(8 * 1024 * 1024)
        self.exit_code: int | None = None
        self.taken = 0

    def progressed(self) -> None:
        """Counted."""
        self.taken += 1


class Client:
    """A connection; while `ready` is not set, it takes nothing. `at_once`: what needed no sender."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.ready.set()
        self.got: list[Frame] = []
        self.at_once = 0

    async def send(self, frame: Frame) -> None:
        await self.ready.wait()
        self.got.append(frame)

    def send_now(self, frame: Frame) -> bool:
        if self.ready.is_set():
            self.got.append(frame)
            self.at_once += 1
        return self.ready.is_set()

    async def close(self, socket_code: int, reason: str) -> None:
        return

    @property
    def output(self) -> bytes:
        return b"".join(frame for frame in self.got if isinstance(frame, bytes))


@asynccontextmanager
async def attached(source: Source, client: Client, codec: Codec) -> AsyncIterator[Attachment]:
    """With its sender at rest."""
    caller = Caller(user_id="u", login_id="l", plan=Plan.FREE)
    attachment = Attachment(
        source,
        client,
        codec,
        caller=caller,
        environment_id="e",
        mode=Mode.READ_WRITE,
        client="c",
        seq=0,
        offset=0,
        hello="hello",
    )
    sender = asyncio.create_task(attachment.run())
    await turns()
    try:
        yield attachment
    finally:
        sender.cancel()
        with suppress(asyncio.CancelledError):
            await sender


async def turns() -> None:
    """Whoever can go on does."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_output_leaves_without_a_turn_of_the_sender() -> None:
    source, client = Source(), Client()
    async with attached(source, client, BinaryCodec()) as attachment:
        source.ring.append(b"one")
        attachment.wake()
        assert client.got == ["hello", b"one"]
        assert attachment.position == 3
        assert source.taken == 1


async def test_an_answer_that_waits_is_not_overtaken() -> None:
    source, client = Source(), Client()
    async with attached(source, client, BinaryCodec()) as attachment:
        attachment.answer("answer")
        source.ring.append(b"one")
        attachment.wake()
        assert client.got == ["hello"]
        await turns()
        assert client.got == ["hello", "answer", b"one"]


async def test_nothing_is_lost_or_doubled_when_the_client_stops_and_goes_on() -> None:
    source, client = Source(), Client()
    sent = b""
    async with attached(source, client, BinaryCodec()) as attachment:
        for number in range(40):
            if number % 7 == 3:
                client.ready.clear()
            data = bytes([number]) * (1 + number * 5000)
            source.ring.append(data)
            sent += data
            attachment.wake()
            if number % 3 == 0:
                await turns()
            if number % 7 == 5:
                client.ready.set()
        client.ready.set()
        await turns()
        assert client.output == sent
        assert attachment.position == len(sent)
    assert client.at_once > 5
    assert max(len(frame) for frame in client.got) <= _FRAME_BYTES


async def test_more_than_a_frame_is_left_to_the_sender() -> None:
    source, client = Source(), Client()
    async with attached(source, client, BinaryCodec()) as attachment:
        source.ring.append(b"y" * (_FRAME_BYTES + 2))
        attachment.wake()
        await turns()
        assert client.output == b"y" * (_FRAME_BYTES + 2)


async def test_a_character_is_not_split() -> None:
    source, client = Source(), Client()
    async with attached(source, client, JsonCodec()) as attachment:
        for byte in "a🙂b".encode():
            source.ring.append(bytes([byte]))
            attachment.wake()
        texts = [json.loads(frame)["data"] for frame in client.got[1:]]
        assert texts == ["a", "🙂", "b"]
