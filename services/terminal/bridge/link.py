"""One end of a bridge: frames both ways, in their order, no faster than they are taken, and never with a hole."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from services.terminal.bridge.wire import (
    COUNTED,
    HEADER_BYTES,
    Closed,
    Dropped,
    Kind,
    pack,
    pack_credit,
    unpack,
    unpack_credit,
)
from services.terminal.protocol import Frame

# A binary frame of terminal output fits into one message; the bus takes 1 MiB by default, and waits for large ones.
_PART_BYTES = 128 * 1024
# What was taken is told in steps of a quarter of the window.
_STEPS = 4
# The same in every replica, else one could wait for credit that the other thinks too little to tell.
WINDOW_BYTES = 256 * 1024
_BEATS_PER_SILENCE = 3

log = structlog.get_logger(__name__)


class LinkEndedError(Exception):
    """Nothing crosses any more."""


class CarrierError(Exception):
    """The bus does not take a message, or a subscription."""


class Carrier(Protocol):
    """The bus, as far as a bridge needs it: in order for each sender, and at most once."""

    @property
    def max_bytes(self) -> int:
        """Of one message."""
        ...

    async def publish(self, subject: str, message: bytes) -> None:
        """Messages are sent in the order of the calls. Raises CarrierError."""
        ...

    async def subscribe(self, subject: str, hear: Callable[[bytes], None]) -> Callable[[], Awaitable[None]]:
        """Gives back what ends it. Raises CarrierError."""
        ...


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """`silent_seconds`: without a sign of life for so long the other end is gone; each end gives three in that time.

    `window_bytes`: under way at most in each direction, give or take one message.
    """

    silent_seconds: float
    window_bytes: int = WINDOW_BYTES


Arrival = Frame | Dropped | Closed


class Link:
    """`on_lost` is called once when a message is missing, the other end is silent, or the bus takes nothing.

    `on_close` is called as soon as the other end says how it closes, before what was sent ahead of it is received.
    """

    def __init__(
        self,
        carrier: Carrier,
        *,
        hears: str,
        tells: str,
        limits: LinkLimits,
        on_lost: Callable[[], None] = lambda: None,
        on_close: Callable[[Closed], None] = lambda _: None,
    ) -> None:
        self.said_close = False
        self._carrier = carrier
        self._hears = hears
        self._tells = tells
        self._limits = limits
        self._on_lost = on_lost
        self._on_close = on_close
        self._part_bytes = min(_PART_BYTES, carrier.max_bytes - HEADER_BYTES)
        self._ended = self._halted = self._heard_close = False
        self._told = self._heard = 0
        self._outstanding = self._taken = self._at_hand = 0
        self._inbox: deque[tuple[Kind, bytes]] = deque()
        self._arrived = asyncio.Event()
        self._credited = asyncio.Event()
        self._unsubscribe: Callable[[], Awaitable[None]] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to listen. Raises CarrierError."""
        self._unsubscribe = await self._carrier.subscribe(self._hears, self._hear)
        self._watching = asyncio.create_task(self._watch())

    async def send(self, frame: Frame) -> None:
        """Waits while the other end has too much to deal with. Raises LinkEndedError."""
        kind, data = (Kind.BINARY, frame) if isinstance(frame, bytes) else (Kind.TEXT, frame.encode())
        start = 0
        while len(data) - start > self._part_bytes:
            await self._send_counted(Kind.PART, data[start : start + self._part_bytes])
            start += self._part_bytes
        await self._send_counted(kind, data[start:] if start else data)

    async def send_dropped(self, dropped: Dropped) -> None:
        """In the place of a frame. Raises LinkEndedError."""
        await self._send_counted(Kind.DROPPED, dropped.pack())

    async def send_close(self, closed: Closed) -> None:
        """The last message; also over a link that is lost, which the other end may not know. Raises LinkEndedError."""
        self.said_close = True
        await self._publish(Kind.CLOSE, closed.pack())

    async def receive(self) -> Arrival | None:
        """What comes next; None when nothing will. Asking again says that what was given before is dealt with."""
        await self._grant(self._at_hand)
        self._at_hand = 0
        parts: list[bytes] = []
        while not (self._ended or self._halted):
            if not self._inbox:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            kind, payload = self._inbox.popleft()
            if kind is Kind.PART:
                parts.append(payload)
                # Else a frame larger than the window would never be whole.
                await self._grant(_cost(payload))
                continue
            if kind is Kind.CLOSE:
                return Closed.unpack(payload)
            self._at_hand = _cost(payload)
            if kind is Kind.DROPPED:
                return Dropped.unpack(payload)
            data = b"".join([*parts, payload]) if parts else payload
            return data if kind is Kind.BINARY else data.decode()
        return None

    def halt(self) -> None:
        """Have `receive` give nothing more; sending goes on."""
        self._halted = True
        self._arrived.set()

    async def close(self) -> None:
        """Stop listening; whoever waits here gets an end. Safe to repeat."""
        self._end()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._unsubscribe is not None:
            unsubscribe, self._unsubscribe = self._unsubscribe, None
            with contextlib.suppress(CarrierError):
                await unsubscribe()

    async def _send_counted(self, kind: Kind, payload: bytes) -> None:
        while self._outstanding >= self._limits.window_bytes and not self._ended:
            self._credited.clear()
            await self._credited.wait()
        self._outstanding += _cost(payload)
        await self._post(kind, payload)

    async def _post(self, kind: Kind, payload: bytes = b"") -> None:
        if self._ended:
            raise LinkEndedError
        await self._publish(kind, payload)

    async def _publish(self, kind: Kind, payload: bytes) -> None:
        # Nothing waits between counting and handing over, so that the numbers are in order whoever sends.
        message = pack(kind, self._told, payload)
        self._told += 1
        try:
            await self._carrier.publish(self._tells, message)
        except CarrierError as error:
            self._lose(f"the bus takes nothing: {error}")
            raise LinkEndedError from error

    async def _grant(self, count: int) -> None:
        self._taken += count
        if self._taken >= self._limits.window_bytes // _STEPS:
            taken, self._taken = self._taken, 0
            with contextlib.suppress(LinkEndedError):
                await self._post(Kind.CREDIT, pack_credit(taken))

    def _hear(self, message: bytes) -> None:
        if self._ended:
            return
        try:
            kind, number, payload = unpack(message)
        except ValueError as error:
            self._lose(str(error))
            return
        if number != self._heard:
            self._lose(f"message {self._heard} is missing")
            return
        self._heard += 1
        if kind is Kind.CREDIT:
            self._outstanding -= unpack_credit(payload)
            self._credited.set()
        elif kind in COUNTED or kind is Kind.CLOSE:
            if kind is Kind.CLOSE:
                self._heard_close = True
                self._on_close(Closed.unpack(payload))
            self._inbox.append((kind, payload))
            self._arrived.set()

    async def _watch(self) -> None:
        # By our own beats, not by the clock: who was held up himself has not listened either.
        quiet = 0
        while True:
            heard = self._heard
            await asyncio.sleep(self._limits.silent_seconds / _BEATS_PER_SILENCE)
            if self._heard_close:
                # It has left; what it sent before may still be on its way to a slow client.
                return
            quiet = quiet + 1 if self._heard == heard else 0
            if quiet >= _BEATS_PER_SILENCE:
                self._lose("the other end is silent")
            try:
                await self._post(Kind.BEAT)
            except LinkEndedError:
                return

    def _lose(self, why: str) -> None:
        if not self._ended:
            log.warning("bridge lost", subject=self._hears, reason=why)
            self._end()
            self._on_lost()

    def _end(self) -> None:
        self._ended = True
        self._arrived.set()
        self._credited.set()


def _cost(payload: bytes) -> int:
    """With its header, so that empty messages are bounded as well."""
    return len(payload) + HEADER_BYTES
