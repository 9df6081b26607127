"""A client that takes from the network only what it is asked to take."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from websockets.frames import Frame, Opcode

from tests.support.torn_wire import Wire


class Reader:
    """Keeps what it was told. `offset`: what it would resume with."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.session_id = ""
        self.offset = 0
        self.output = bytearray()
        self.gaps: list[tuple[int, int]] = []

    async def until(self, done: Callable[[], bool]) -> None:
        """Raises AssertionError when the connection ends before."""
        while not done():
            for event in await self.wire.receive(65_536):
                if isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                    self.output += event.data
                    self.offset += len(event.data)
                elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                    self._take_control(json.loads(bytes(event.data)))
            assert not self.wire.has_ended, bytes(self.output[-200:])

    async def expect(self, mark: bytes) -> None:
        """Until it shows near the end of the output."""
        await self.until(lambda: mark in self.output[-70_000:])

    def _take_control(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "gap":
            assert frame["from"] == self.offset, f"at {self.offset}: {frame}"
            self.gaps.append((frame["from"], frame["to"]))
            self.offset = frame["to"]
        else:
            assert frame["type"] == "ready", frame
            self.session_id, self.offset = frame["session_id"], frame["offset"]


async def connected(address: str) -> Reader:
    """A client on a shell."""
    reader = Reader(await Wire.open(address))
    await reader.wire.send_request()
    await reader.until(lambda: reader.session_id != "")
    return reader
