"""Both ends of a bridge on a bus that may lose, hold back and refuse messages."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.identity import Plan
from libs.runtime.port import TerminalSize
from services.terminal.bridge.link import Arrival, CarrierError, Link, LinkEndedError, LinkLimits
from services.terminal.bridge.wire import HEADER_BYTES, Closed, Dropped, Kind, Wish, pack
from services.terminal.domain import Caller, Mode
from tests.support.leaping import leaping

_LIMITS = LinkLimits(silent_seconds=30, window_bytes=1000)


class Bus:
    """Delivers at once, unless `held`."""

    def __init__(self, max_bytes: int = 300) -> None:
        self.max_bytes = max_bytes
        self.refuses = False
        self.loses: Callable[[bytes], bool] = lambda _: False
        self.sent: list[bytes] = []
        self.held: deque[tuple[str, bytes]] | None = None
        self._hearers: dict[str, Callable[[bytes], None]] = {}

    async def publish(self, subject: str, message: bytes) -> None:
        if self.refuses or len(message) > self.max_bytes:
            raise CarrierError("no")
        self.sent.append(message)
        if self.held is not None:
            self.held.append((subject, message))
        elif not self.loses(message):
            self.deliver(subject, message)

    def deliver(self, subject: str, message: bytes) -> None:
        if subject in self._hearers:
            self._hearers[subject](message)

    async def subscribe(self, subject: str, hear: Callable[[bytes], None]) -> Callable[[], Awaitable[None]]:
        self._hearers[subject] = hear

        async def unsubscribe() -> None:
            del self._hearers[subject]

        return unsubscribe


class Ends:
    """`near` and `far`, and what each was told."""

    def __init__(self, bus: Bus, limits: LinkLimits) -> None:
        self.lost: list[str] = []
        self.closes: list[Closed] = []
        self.near = Link(bus, hears="out", tells="in", limits=limits, on_lost=lambda: self.lost.append("near"))
        self.far = Link(
            bus,
            hears="in",
            tells="out",
            limits=limits,
            on_lost=lambda: self.lost.append("far"),
            on_close=self.closes.append,
        )


@asynccontextmanager
async def ends(bus: Bus, limits: LinkLimits = _LIMITS) -> AsyncIterator[Ends]:
    both = Ends(bus, limits)
    await both.near.open()
    await both.far.open()
    try:
        yield both
    finally:
        await both.near.close()
        await both.far.close()


async def turns(count: int = 20) -> None:
    """Let whoever can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


@given(
    st.lists(
        st.one_of(
            st.text(max_size=700),
            st.binary(max_size=3000),
            st.builds(Dropped, st.booleans(), st.text(max_size=5), st.text(max_size=5)),
        ),
        max_size=10,
    ),
    st.integers(HEADER_BYTES + 200, 5000),
)
async def test_everything_arrives_as_it_was_sent_however_small_messages_are(
    items: list[str | bytes | Dropped], max_bytes: int
) -> None:
    async with ends(Bus(max_bytes)) as both:

        async def send() -> None:
            for item in items:
                if isinstance(item, Dropped):
                    await both.near.send_dropped(item)
                else:
                    await both.near.send(item)
            await both.near.send_close(Closed(1000, "exit"))

        sending = asyncio.create_task(send())
        arrived: list[Arrival] = []
        async with asyncio.timeout(60):
            while not isinstance(item := await both.far.receive(), Closed):
                assert item is not None
                arrived.append(item)
        await sending
        assert arrived == items
        assert both.closes == [item] == [Closed(1000, "exit")]
        assert both.lost == []


async def test_the_sender_waits_while_the_other_end_takes_nothing() -> None:
    bus = Bus()
    async with ends(bus) as both:
        sent = 0

        async def send() -> None:
            nonlocal sent
            while True:
                await both.near.send(bytes(100))
                sent += 1

        sending = asyncio.create_task(send())
        await turns()
        assert sent == -(-1000 // (100 + HEADER_BYTES))
        # One that is only asked for is not dealt with yet.
        await both.far.receive()
        await turns()
        assert sent == 10
        for _ in range(4):
            await both.far.receive()
        await turns()
        assert sent > 10
        sending.cancel()


async def test_a_lost_message_ends_it_with_the_next_one() -> None:
    bus = Bus()
    async with ends(bus) as both:
        await both.near.send(b"first")
        bus.loses = lambda message: b"second" in message
        await both.near.send(b"second")
        assert both.lost == []
        await both.near.send(b"third")
        assert both.lost == ["far"]
        assert await both.far.receive() is None
        with pytest.raises(LinkEndedError):
            await both.far.send(b"x")
        # The other end does not know yet, and need not wait for the silence.
        await both.far.send_close(Closed(1001, "lost"))
        assert await both.near.receive() == Closed(1001, "lost")


@pytest.mark.parametrize("message", [b"", b"\xff" * 20, pack(Kind.TEXT, 7)])
async def test_what_does_not_belong_there_ends_it(message: bytes) -> None:
    bus = Bus()
    async with ends(bus) as both:
        bus.deliver("in", message)
        assert both.lost == ["far"]


@leaping
async def test_a_sign_of_life_shows_that_the_last_message_was_lost() -> None:
    bus = Bus()
    async with ends(bus) as both:
        bus.loses = lambda message: b"last" in message
        await both.near.send(b"last")
        assert await both.far.receive() is None
        assert "far" in both.lost
        assert asyncio.get_running_loop().time() < _LIMITS.silent_seconds


@leaping
async def test_silence_ends_both_ends_and_who_waits_for_credit() -> None:
    bus = Bus()
    async with ends(bus, replace(_LIMITS, window_bytes=10)) as both:
        await both.near.send(b"0123456789")
        waiting = asyncio.create_task(both.near.send(b"more"))
        await asyncio.sleep(100)
        assert both.lost == []
        bus.loses = lambda _: True
        async with asyncio.timeout(60):
            with pytest.raises(LinkEndedError):
                await waiting
            while await both.far.receive() is not None:
                pass
        assert sorted(both.lost) == ["far", "near"]


async def test_who_was_held_up_himself_takes_nobody_for_silent() -> None:
    bus = Bus()
    async with ends(bus, LinkLimits(silent_seconds=0.09, window_bytes=1000)) as both:
        time.sleep(0.3)  # noqa: ASYNC251 - nobody in this process gets a turn
        await asyncio.sleep(0.04)
        assert both.lost == []


@leaping
async def test_who_has_closed_is_not_missed() -> None:
    """The end of the output may wait long for a slow client."""
    bus = Bus()
    async with ends(bus) as both:
        await both.near.send(b"rest")
        await both.near.send_close(Closed(1000, "exit"))
        await both.near.close()
        await asyncio.sleep(100)
        assert await both.far.receive() == b"rest"
        assert await both.far.receive() == Closed(1000, "exit")
        assert both.lost == []


async def test_a_bus_that_takes_nothing_ends_it() -> None:
    bus = Bus()
    async with ends(bus) as both:
        bus.refuses = True
        with pytest.raises(LinkEndedError):
            await both.near.send(b"x")
        assert both.lost == ["near"]


async def test_halted_it_gives_nothing_more_but_still_says_goodbye() -> None:
    async with ends(Bus()) as both:
        await both.near.send(b"x")
        waiting = asyncio.create_task(both.near.receive())
        await turns()
        both.near.halt()
        assert await waiting is None
        both.far.halt()
        assert await both.far.receive() is None
        await both.near.send_close(Closed(1001, "gone"))
        assert both.closes == [Closed(1001, "gone")]


@pytest.mark.parametrize("size", [None, TerminalSize(80, 24)])
def test_a_wish_crosses_as_json(size: TerminalSize | None) -> None:
    wish = Wish(Caller("u", "l", Plan.PRO), "e", Mode.READ_ONLY, True, 7, "phone", size)
    assert Wish.of(wish.fields()) == wish
