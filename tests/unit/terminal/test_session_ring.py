"""What a session keeps of its output for clients that come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from libs.common.contracts.identity import Plan
from libs.runtime.holder.shells import OwnShell
from libs.runtime.port import TerminalSize
from services.terminal.domain import Caller, Mode
from services.terminal.ports import OpenedSession
from services.terminal.protocol import BinaryCodec, Frame
from services.terminal.sessions.attachment import Attachment
from services.terminal.sessions.session import SessionLimits, TerminalSession
from tests.support.app import eventually
from tests.unit.terminal.test_typing import Stream

_PIECE = bytes(64 * 1024)
_WINDOW = len(_PIECE)
_FLOOD = 40 * len(_PIECE)
_RECORD = OpenedSession("s", "e", "u", "here", datetime(2026, 1, 1, tzinfo=UTC))


class _Flood(Stream):
    """A shell that has put out _FLOOD bytes, and then rests."""

    def __init__(self) -> None:
        super().__init__()
        self._left = _FLOOD

    async def read(self, max_bytes: int = 65536) -> bytes:
        if not self._left:
            return await super().read(max_bytes)
        data = _PIECE[: min(max_bytes, self._left)]
        self._left -= len(data)
        return data


class _Client:
    """Takes the output, unless it is told to stand still."""

    def __init__(self, *, takes: int = _FLOOD) -> None:
        self._left = takes

    def send_now(self, frame: Frame) -> bool:
        return False

    async def send(self, frame: Frame) -> None:
        if self._left <= 0:
            await asyncio.Event().wait()
        self._left -= len(frame) if isinstance(frame, bytes) else 0

    async def close(self, socket_code: int, reason: str) -> None:
        return


@asynccontextmanager
async def flooded(
    client: _Client, *, until: int, hold_seconds: float
) -> AsyncIterator[tuple[TerminalSession, Attachment]]:
    """A session once it has put out so many bytes. Its output rests as soon as nothing comes."""
    limits = SessionLimits(len(_PIECE), 2 * _FLOOD, _WINDOW, 64, hold_seconds, _FLOOD, quiet_after_seconds=0.0)
    session = TerminalSession(_RECORD, OwnShell(_Flood(), TerminalSize()), limits)
    caller = Caller("u", "l", Plan.FREE)
    attachment = session.attach(client, BinaryCodec(), caller=caller, mode=Mode.READ_WRITE, offset=0)
    running = asyncio.create_task(attachment.run())

    async def is_out() -> bool:
        return session.ring.end >= until

    try:
        await eventually(is_out)
        yield session, attachment
    finally:
        running.cancel()
        await session.close()


@pytest.mark.parametrize(("hold_seconds", "is_kept"), [(60.0, True), (0.0, False)])
async def test_a_burst_is_kept_while_its_client_may_come_back(hold_seconds: float, is_kept: bool) -> None:
    async with flooded(_Client(), until=_FLOOD, hold_seconds=hold_seconds) as (session, attachment):
        session.detach(attachment)
        session.forget_burst()
        assert (session.ring.start == 0) == is_kept


async def test_a_burst_is_kept_while_its_client_stands_still() -> None:
    half = _FLOOD // 2
    async with flooded(_Client(takes=half), until=half + 2 * _WINDOW, hold_seconds=0.0) as (session, _):
        session.forget_burst()
        assert session.ring.start == 0


async def test_a_burst_that_was_taken_is_forgotten() -> None:
    async with flooded(_Client(), until=_FLOOD, hold_seconds=60.0) as (session, _):
        session.forget_burst()
        assert session.ring.end - session.ring.start <= 2 * len(_PIECE)
