"""Numbered input over a network that loses, delays and cuts: every byte is typed once, in its order."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.identity import Plan
from libs.runtime.holder.shells import OwnShell
from libs.runtime.port import TerminalSize
from services.terminal.domain import Caller, Mode
from services.terminal.ports import OpenedSession
from services.terminal.protocol import BinaryCodec, Frame, JsonCodec
from services.terminal.sessions.session import SessionLimits, TerminalSession
from services.terminal.sessions.writer import Writer

_LIMITS = SessionLimits(1024, 1024, 1024, 64, 0, 1024)
_CALLER = Caller("u", "l", Plan.FREE)
_RECORD = OpenedSession("s", "e", "u", "here", datetime(2026, 1, 1, tzinfo=UTC))


class Stream:
    """A shell that keeps what was typed. While `takes` is not set, its input is full."""

    def __init__(self) -> None:
        self.typed = bytearray()
        self.takes = asyncio.Event()
        self.takes.set()
        self._end = asyncio.Event()

    async def read(self, max_bytes: int = 65536) -> bytes:
        await self._end.wait()
        return b""

    async def read_stderr(self, max_bytes: int = 65536) -> bytes:
        return b""

    async def write(self, data: bytes) -> None:
        await self.takes.wait()
        self.typed += data

    def write_now(self, data: bytes) -> int:
        if not self.takes.is_set():
            return 0
        self.typed += data
        return len(data)

    async def write_eof(self) -> None:
        return

    async def resize(self, size: TerminalSize) -> None:
        return

    async def wait(self) -> int:
        return 0

    async def close(self) -> None:
        self._end.set()


class Wire:
    """One connection: frames that the client has sent and the server has not read, and the other way round."""

    def __init__(self, session: TerminalSession, client: str | None, *, binary: bool, mode: Mode) -> None:
        self.up: deque[Frame] = deque()
        self.down: deque[dict[str, Any]] = deque()
        codec = BinaryCodec() if binary else JsonCodec()
        self._session = session
        self.attachment = session.attach(self, codec, caller=_CALLER, mode=mode, offset=None, client=client)
        self._names_itself = client is not None
        self._running = asyncio.create_task(self.attachment.run())

    @cached_property
    def writer(self) -> Writer:
        """Made at its first use: between joining a session and reading, a server still has to accept."""
        return Writer(self._session, self.attachment, counts_binary=self._names_itself)

    def send_now(self, frame: Frame) -> bool:
        return False

    async def send(self, frame: Frame) -> None:
        if isinstance(frame, str):
            self.down.append(json.loads(frame))

    async def close(self, socket_code: int, reason: str) -> None:
        return

    async def deliver(self) -> None:
        """The server reads one frame."""
        if self.up:
            await self.writer.take(self.up.popleft())

    def lose(self) -> None:
        """The server reads one frame and drops it, as it does above the rate."""
        if self.up:
            self.writer.drop(self.up.popleft(), "rate_limited", "too fast")

    def end(self) -> None:
        """The server notices that the client is gone."""
        self._running.cancel()
        self._session.detach(self.attachment)


class Phone:
    """A client as the protocol wants it: sends again what is not acknowledged, after each reconnect and error."""

    def __init__(self, *, binary: bool) -> None:
        self.binary = binary
        self.written = bytearray()
        self.pending: deque[tuple[int, bytes]] = deque()
        self._count = 0

    def type(self, wire: Wire) -> None:
        self._count += 1
        data = b"<%d>" % self._count
        self.written += data
        self.pending.append((self._count, data))
        wire.up.append(self._frame(self._count, data))

    def read(self, wire: Wire) -> None:
        """One frame of the server."""
        if not wire.down:
            return
        frame = wire.down.popleft()
        if frame["type"] in {"ready", "ack"}:
            while self.pending and self.pending[0][0] <= frame["seq"]:
                self.pending.popleft()
        if frame["type"] in {"ready", "error"} and self.pending:
            if self.binary and frame["type"] == "error":
                wire.up.append(json.dumps({"type": "input_seq", "seq": self.pending[0][0]}))
            wire.up.extend(self._frame(seq, data) for seq, data in self.pending)

    def _frame(self, seq: int, data: bytes) -> Frame:
        return data if self.binary else json.dumps({"type": "input", "data": data.decode(), "seq": seq})


class World:
    """One phone, one shell, and connections of which only the newest reaches the phone."""

    def __init__(self, *, binary: bool) -> None:
        self.stream = Stream()
        self.session = TerminalSession(_RECORD, OwnShell(self.stream, TerminalSize()), _LIMITS)
        self.phone = Phone(binary=binary)
        self.wires: list[Wire] = []

    async def act(self, action: str) -> None:
        wire = self.wires[-1]
        match action:
            case "type":
                self.phone.type(wire)
            case "deliver":
                await wire.deliver()
            case "lose":
                wire.lose()
            case "read":
                self.phone.read(wire)
            case "late":
                # A connection that the phone has given up still brings what was on its way.
                await self.wires[0].deliver()
            case "stick":
                self.stream.takes.clear()
            case "flow":
                self.stream.takes.set()
            case "cut":
                await self.connect()
            case "bury":
                self.bury()
        await asyncio.sleep(0)

    async def connect(self) -> None:
        self.wires.append(Wire(self.session, "phone", binary=self.phone.binary, mode=Mode.READ_WRITE))
        await asyncio.sleep(0)
        # Nothing is typed before `ready` was read.
        assert self.wires[-1].down[0]["type"] == "ready"
        self.phone.read(self.wires[-1])

    def bury(self) -> None:
        while len(self.wires) > 1:
            self.wires.pop(0).end()

    async def calm_down(self) -> None:
        """The network is good again: all arrives, until all is acknowledged."""
        self.stream.takes.set()
        await self.connect()
        for _ in range(1000):
            wire = self.wires[-1]
            if not (self.phone.pending or wire.up or wire.down):
                break
            await self.act("deliver")
            await self.act("read")
            if self.phone.pending and not (wire.up or wire.down):
                await self.connect()
        self.bury()
        self.wires.pop().end()
        for _ in range(3):
            await asyncio.sleep(0)
        await self.session.close()


_ACTIONS = ("type", "type", "deliver", "deliver", "read", "read", "cut", "lose", "late", "stick", "flow", "bury")


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@given(actions=st.lists(st.sampled_from(_ACTIONS), min_size=20, max_size=60))
def test_every_byte_is_typed_exactly_once(binary: bool, actions: list[str]) -> None:
    async def story() -> None:
        world = World(binary=binary)
        await world.connect()
        for action in actions:
            await world.act(action)
        await world.calm_down()
        assert not world.phone.pending
        assert world.stream.typed == world.phone.written

    asyncio.run(story())


class Desk:
    """A session to send frames to by hand."""

    def __init__(self) -> None:
        self.stream = Stream()
        self.session = TerminalSession(_RECORD, OwnShell(self.stream, TerminalSize()), _LIMITS)

    def wire(self, client: str | None = None, mode: Mode = Mode.READ_WRITE) -> Wire:
        return Wire(self.session, client, binary=False, mode=mode)

    async def say(self, wire: Wire, *frames: Frame | dict[str, Any]) -> list[dict[str, Any]]:
        """Send frames; what is answered, without `ready`."""
        for frame in frames:
            await wire.writer.take(json.dumps(frame) if isinstance(frame, dict) else frame)
        for _ in range(8):
            await asyncio.sleep(0)
        answers = [frame for frame in wire.down if frame["type"] != "ready"]
        wire.down.clear()
        return answers


def numbered(seq: int, data: str) -> dict[str, Any]:
    return {"type": "input", "data": data, "seq": seq}


class TestNumbers:
    async def test_what_was_taken_is_acknowledged_once_for_several(self) -> None:
        desk = Desk()
        wire = desk.wire()
        await desk.say(wire)
        assert await desk.say(wire, numbered(1, "a"), numbered(2, "b"), numbered(3, "")) == [{"type": "ack", "seq": 3}]
        assert await desk.say(wire, numbered(2, "b")) == [{"type": "ack", "seq": 3}]
        assert desk.stream.typed == b"ab"

    async def test_a_gap_is_an_error_and_types_nothing(self) -> None:
        desk = Desk()
        wire = desk.wire()
        await desk.say(wire)
        error, ack = await desk.say(wire, numbered(2, "b"), numbered(3, "c"))
        assert (error["type"], error["code"]) == ("error", "input_gap")
        assert error["message"].startswith("2 messages were not delivered")
        assert ack == {"type": "ack", "seq": 0}
        assert await desk.say(wire, numbered(1, "a"), numbered(2, "b")) == [{"type": "ack", "seq": 2}]
        assert desk.stream.typed == b"ab"

    async def test_clients_count_apart_and_ready_tells_each_its_own(self) -> None:
        desk = Desk()
        phone, laptop = desk.wire("phone"), desk.wire("laptop")
        await desk.say(phone, numbered(1, "a"))
        await desk.say(laptop, numbered(1, "b"), numbered(2, "c"))
        again = desk.wire("phone")
        await asyncio.sleep(0)
        assert again.down[0] == {"type": "ready", "session_id": "s", "offset": 0, "client": "phone", "seq": 1}
        assert desk.stream.typed == b"abc"

    async def test_without_a_name_a_connection_is_a_client_of_its_own_and_may_come_back_by_it(self) -> None:
        desk = Desk()
        wire, other = desk.wire(), desk.wire()
        await asyncio.sleep(0)
        name = wire.down[0]["client"]
        assert name != other.down[0]["client"]
        await desk.say(wire, numbered(1, "a"))
        again = desk.wire(name)
        await asyncio.sleep(0)
        assert again.down[0]["seq"] == 1

    async def test_a_client_that_may_have_been_forgotten_is_told_so(self) -> None:
        desk = Desk()
        for number in range(17):
            wire = desk.wire(f"client-{number}")
            await desk.say(wire, numbered(1, "x"))
            wire.end()
        wires = [desk.wire("client-0"), desk.wire("client-16"), desk.wire()]
        await asyncio.sleep(0)
        assert [wire.down[0]["seq"] for wire in wires] == [None, 1, 0]

    async def test_input_without_numbers_is_typed_as_ever(self) -> None:
        desk = Desk()
        wire = desk.wire("phone")
        assert await desk.say(wire, {"type": "input", "data": "a"}, "b", {"type": "input", "data": "c"}) == []
        unnamed = desk.wire()
        assert await desk.say(unnamed, b"d", b"e") == []
        assert desk.stream.typed == b"abcde"

    async def test_binary_frames_count_themselves_when_the_client_has_a_name(self) -> None:
        desk = Desk()
        wire = desk.wire("phone")
        assert await desk.say(wire, b"a", numbered(2, "b"), b"c") == [{"type": "ack", "seq": 3}]
        again = {"type": "input_seq", "seq": 2}
        # What is repeated is acknowledged at once, what is new when the shell has it.
        assert await desk.say(wire, again, b"b", b"c", b"d") == [{"type": "ack", "seq": 3}, {"type": "ack", "seq": 4}]
        assert desk.stream.typed == b"abcd"

    async def test_after_a_dropped_text_frame_binary_frames_wait_for_their_number(self) -> None:
        desk = Desk()
        wire = desk.wire("phone")
        await desk.say(wire, b"a")
        wire.writer.drop('{"type":"input_seq","seq":1}', "rate_limited", "too fast")
        error, gap, ack = await desk.say(wire, b"a")
        assert {error["code"], gap["code"]} == {"rate_limited", "input_gap"}
        assert ack == {"type": "ack", "seq": 1}
        answers = await desk.say(wire, {"type": "input_seq", "seq": 1}, b"a", b"b")
        assert answers == [{"type": "ack", "seq": 1}, {"type": "ack", "seq": 2}]
        assert desk.stream.typed == b"ab"

    async def test_binary_numbers_without_a_name_are_refused(self) -> None:
        desk = Desk()
        wire = desk.wire()
        (error,) = await desk.say(wire, {"type": "input_seq", "seq": 1})
        assert error["code"] == "invalid_frame"

    async def test_a_watcher_types_nothing_and_gets_no_acknowledgement(self) -> None:
        desk = Desk()
        wire = desk.wire("phone", Mode.READ_ONLY)
        assert await desk.say(wire, numbered(1, "a"), {"type": "input_seq", "seq": 1}, b"b") == []
        assert desk.stream.typed == b""

    async def test_input_that_the_shell_does_not_take_is_not_acknowledged(self) -> None:
        desk = Desk()
        wire = desk.wire("phone")
        desk.stream.takes.clear()
        *errors, ack = await desk.say(wire, numbered(1, "x" * 60), numbered(2, "y" * 60), numbered(3, "z"))
        assert {error["code"] for error in errors} == {"input_overflow", "input_gap"}
        # The first one waits; only what the shell has is acknowledged.
        assert ack == {"type": "ack", "seq": 0}
        desk.stream.takes.set()
        assert await desk.say(wire) == [{"type": "ack", "seq": 1}]
        answers = await desk.say(wire, numbered(2, "y" * 60), numbered(3, "z"))
        assert answers[-1] == {"type": "ack", "seq": 3}
        assert desk.stream.typed == b"x" * 60 + b"y" * 60 + b"z"

    async def test_what_is_dropped_is_not_counted_as_typed(self) -> None:
        desk = Desk()
        wire = desk.wire("phone")
        desk.stream.takes.clear()
        await desk.say(wire, numbered(1, "x" * 60), numbered(2, "y" * 60), numbered(1, "x" * 60))
        assert desk.session.typed_bytes == 60
        assert not desk.session.type(b"z" * 60)
        assert desk.session.typed_bytes == 60
        desk.stream.takes.set()
        await desk.say(wire)
        assert desk.session.type(b"z")
        assert desk.session.typed_bytes == 61
