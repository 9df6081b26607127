"""A terminal client whose connection is torn again and again, and who has to end up with every byte of a known stream.

It speaks WebSocket byte by byte, so that a cut may fall anywhere: into the request, into the answer, into a frame.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from random import Random

from websockets.frames import Frame, Opcode
from websockets.http11 import Response

from tests.support.torn_wire import Wire

_CHUNK = 65_536
# Of the network, while only the answer and `ready` are waited for.
_LITTLE = 512
# Whoever is being restarted is back within this, or it is a bug.
_PATIENCE_S = 60.0
_PAUSE_S = 0.05
_TRY_AGAIN = frozenset({429, 502, 503, 504})
# Says of itself that it goes away; what is missing comes with the resume.
_GOING_AWAY = 1001

Disturb = Callable[[int], Awaitable[None]]


class Moment(Enum):
    """Where a connection is cut."""

    REQUEST = "while the request is sent"
    ANSWER = "while the handshake is answered"
    READY = "right after ready"
    OUTPUT = "in the output"
    INPUT = "in a frame of ours"
    CLOSE = "while it is closed"


_WEIGHTS = {Moment.REQUEST: 1, Moment.ANSWER: 1, Moment.READY: 1, Moment.OUTPUT: 5, Moment.INPUT: 1, Moment.CLOSE: 1}


class KnownStream:
    """`size` bytes that follow from `seed`, all byte values among them, and the command that prints them in a shell."""

    def __init__(self, seed: int, size: int) -> None:
        random = Random(seed)
        self.data = b"".join(random.randbytes(_CHUNK) for _ in range(-(-size // _CHUNK)))[:size]
        self.begin, self.end = (secrets.token_hex(8).encode() for _ in range(2))
        self._seed = seed

    def command(self) -> bytes:
        """A line to type. The marks are in two halves, so that only the program's output holds them whole."""
        begin, end = (f"b'{mark[:8].decode()}'+b'{mark[8:].decode()}'" for mark in (self.begin, self.end))
        size = len(self.data)
        program = (
            f"import random,sys;r=random.Random({self._seed});w=sys.stdout.buffer.write;w({begin});"
            f"[w(r.randbytes({_CHUNK})[:{size}-i]) for i in range(0,{size},{_CHUNK})];w({end})"
        )
        return f'stty raw -echo; python3 -c "{program}"; stty sane\n'.encode()


@dataclass
class Report:
    """What happened on the way."""

    cuts: Counter[Moment] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __str__(self) -> str:
        cuts = ", ".join(f"{count} {moment.value}" for moment, count in self.cuts.most_common())
        return f"{self.cuts.total()} cuts ({cuts}), {dict(self.answers)}, {self.seconds:.1f} s"


class TornTerminal:
    """One session that prints a known stream, read over connections that break. `address`: the WebSocket's URL."""

    def __init__(self, address: str, stream: KnownStream, *, cuts: int, seed: int) -> None:
        self.session_id = ""
        self.report = Report()
        self._address = address
        self._stream = stream
        self._cuts = cuts
        self._random = Random(seed)
        self._offset = 0
        self._before = b""
        # The stream's first byte counts from here, once it has been seen.
        self._origin: int | None = None
        self._expected = stream.data + stream.end

    async def run(self, disturb: Disturb | None = None) -> Report:
        """Until the stream has ended. `disturb` hears of each cut, by its number from 1.

        Raises AssertionError when a byte is missing, doubled or another, TimeoutError when nobody answers.
        """
        started = time.monotonic()
        await self.begin()
        for number in range(1, self._cuts + 1):
            moment = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
            await self._until_cut(moment, self._budget(self._cuts - number + 1))
            self.report.cuts[moment] += 1
            if disturb is not None:
                await disturb(number)
        while not self._is_done:
            async with await self.connected() as wire:
                await self._read(wire, None)
        self.report.seconds = time.monotonic() - started
        return self.report

    @property
    def offset(self) -> int:
        """Where another client goes on."""
        return self._offset

    @property
    def received(self) -> int:
        """How many bytes of the stream have come, its end mark included."""
        return 0 if self._origin is None else self._offset - self._origin

    @property
    def _is_done(self) -> bool:
        return self.received >= len(self._expected)

    def _budget(self, cuts_left: int) -> int:
        """Bytes of the network until the next cut, so that the last one still falls into the stream."""
        left = max(len(self._expected) - self.received, 0)
        return self._random.randint(0, 2 * left // (cuts_left + 1))

    async def begin(self) -> None:
        """Start the program, and read until it has begun."""
        if self._origin is not None:
            return
        async with await self.connected() as wire:
            await wire.send_binary(self._stream.command())
            while self._origin is None:
                assert await self._read_some(wire, _CHUNK), "the first connection ended by itself"

    async def _until_cut(self, moment: Moment, budget: int) -> None:
        if moment in {Moment.REQUEST, Moment.ANSWER}:
            return await self._cut_handshake(moment)
        async with await self.connected() as wire:
            if moment is Moment.READY:
                return None
            await self._read(wire, budget)
            if moment is Moment.INPUT:
                # The whole would be typed into a shell that is busy, and show in what follows.
                await wire.send_part_of_input(b"never typed " * 20, self._random.random())
            elif moment is Moment.CLOSE and not wire.has_ended:
                await wire.send_close()
                await self._read(wire, self._random.choice([0, 1, 100, _CHUNK]))
        return None

    async def _cut_handshake(self, moment: Moment) -> None:
        try:
            async with await Wire.open(self._url()) as wire:
                await wire.send_request(self._random.random() if moment is Moment.REQUEST else 1.0)
                if moment is Moment.ANSWER:
                    await wire.receive(self._random.randint(1, 400))
        except OSError as error:
            self.report.answers[type(error).__name__] += 1

    async def connected(self) -> Wire:
        """A connection that is `ready`, however often it takes. Raises TimeoutError."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    wire = await Wire.open(self._url())
                except OSError as error:
                    self.report.answers[type(error).__name__] += 1
                    await asyncio.sleep(_PAUSE_S)
                    continue
                pause = await self._until_ready(wire)
                if pause is None:
                    return wire
                wire.cut()
                await asyncio.sleep(pause)

    async def _until_ready(self, wire: Wire) -> float | None:
        """None once it is; otherwise the seconds to wait before another try."""
        await wire.send_request()
        while not wire.has_ended:
            for event in await wire.receive(_LITTLE):
                if isinstance(event, Response):
                    self.report.answers[str(event.status_code)] += 1
                    if event.status_code != 101:
                        assert event.status_code in _TRY_AGAIN, (event.status_code, event.body)
                        return float(event.headers.get("Retry-After", _PAUSE_S))
                elif isinstance(event, Frame):
                    self._take(wire, event)
            if wire.is_ready:
                return None
        self.report.answers["ended"] += 1
        return _PAUSE_S

    async def _read(self, wire: Wire, budget: int | None) -> None:
        """Up to `budget` bytes of the network, or until the stream or the connection has ended."""
        while not self._is_done and not wire.has_ended and (budget is None or budget > 0):
            budget = await self._read_some(wire, _CHUNK if budget is None else min(budget, _CHUNK), budget)

    async def _read_some(self, wire: Wire, most: int, budget: int | None = None) -> int | None:
        before = wire.received_bytes
        for event in await wire.receive(most):
            assert isinstance(event, Frame), event
            self._take(wire, event)
        count = wire.received_bytes - before
        if budget is None:
            return count or None
        return budget - count

    def _url(self) -> str:
        return f"{self._address}&session={self.session_id}&offset={self._offset}" if self.session_id else self._address

    def _take(self, wire: Wire, frame: Frame) -> None:
        assert frame.fin, "the service sends whole messages"
        if frame.opcode is Opcode.BINARY:
            self._take_output(bytes(frame.data))
        elif frame.opcode is Opcode.CLOSE:
            code = int.from_bytes(frame.data[:2], "big")
            self.report.answers[f"close {code}"] += 1
            assert code == _GOING_AWAY or wire.said_goodbye, f"closed with {code}"
        elif frame.opcode is Opcode.TEXT:
            self._take_control(wire, json.loads(bytes(frame.data)))

    def _take_control(self, wire: Wire, frame: dict[str, object]) -> None:
        if frame["type"] == "ready":
            assert frame["offset"] == self._offset, f"at {self._offset}: {frame}"
            assert self.session_id in {"", frame["session_id"]}, f"not {self.session_id}: {frame}"
            self.session_id = str(frame["session_id"])
            wire.is_ready = True
        else:
            # A gap is a loss, an exit is too early, and no error but "come back" is expected.
            assert frame["type"] == "error", f"at {self._offset}: {frame}"
            assert frame["code"] in {"shutting_down", "bridge_lost"}, frame
            self.report.answers[str(frame["code"])] += 1

    def _take_output(self, data: bytes) -> None:
        start = self._offset
        self._offset += len(data)
        if self._origin is None:
            self._before += data
            found = self._before.find(self._stream.begin)
            if found < 0:
                return
            self._origin = found + len(self._stream.begin)
            start, data = self._origin, self._before[self._origin :]
        place = start - self._origin
        wanted = self._expected[place : place + len(data)]
        if data[: len(wanted)] != wanted:
            wrong = next(index for index, byte in enumerate(wanted) if data[index] != byte)
            raise AssertionError(f"byte {place + wrong} of the stream is another: {data[wrong : wrong + 40]!r}")
