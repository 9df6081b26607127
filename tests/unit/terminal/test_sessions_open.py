"""When a replica takes sessions at all."""

from __future__ import annotations

from typing import cast

import pytest

from libs.common.clock import utc_now
from libs.common.contracts.identity import Plan
from libs.runtime.port import TerminalSize
from services.terminal.domain import (
    Caller,
    Environment,
    SessionNotFoundError,
    ShuttingDownError,
    StartingUpError,
)
from services.terminal.ports import Environments, SessionStore
from services.terminal.service.sessions import Sessions
from services.terminal.service.starting import ShellStarter
from services.terminal.sessions.session import SessionLimits

_CALLER = Caller("u", "login", Plan.FREE)


class _Store:
    async def publish(self, session_ids: list[str]) -> None:
        assert session_ids == []


async def test_only_between_its_beginning_and_its_end() -> None:
    sessions = Sessions(
        cast("ShellStarter", None),
        cast("SessionStore", _Store()),
        cast("Environments", None),
        limits=SessionLimits(1, 1, 1, 1, 1, 1),
        replica_id="here",
        per_user=1,
        clock=utc_now,
        is_revoked=lambda _: False,
    )
    # Nobody knows it yet: another replica would take what it opens for an orphan.
    with pytest.raises(StartingUpError):
        await sessions.open(_CALLER, Environment("e", "u", 1), TerminalSize())
    with pytest.raises(StartingUpError):
        sessions.find(_CALLER, "e", "s")
    sessions.begin()
    with pytest.raises(SessionNotFoundError):
        sessions.find(_CALLER, "e", "s")
    await sessions.drain()
    with pytest.raises(ShuttingDownError):
        sessions.find(_CALLER, "e", "s")
