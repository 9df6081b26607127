"""Who serves a session when its owner is gone, and what several askers at once find."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest

from libs.common.contracts.environments import DesiredState, EnvironmentStatus
from libs.common.contracts.identity import Plan
from libs.common.errors import UnavailableError
from libs.runtime.holder.shells import Shell
from services.terminal.domain import Caller, CloseReason, Environment, OwnerSilentError, SessionNotFoundError
from services.terminal.ports import ClosedSession, Environments, OpenedSession, SessionStore
from services.terminal.service.sessions import Sessions
from services.terminal.service.starting import ShellStarter
from services.terminal.service.takeovers import Takeovers
from services.terminal.sessions.session import TerminalSession

_CALLER = Caller("u", "login", Plan.FREE)
_LEFT = OpenedSession("s", "e", "u", "dead", datetime(2026, 1, 1, tzinfo=UTC), generation=1, is_held=True)


class World:
    """One replica (`here`), what the store says, and what becomes of shells that are looked for."""

    def __init__(self, *records: OpenedSession) -> None:
        self.records = {record.id: record for record in records}
        self.alive = {"here"}
        self.environment = Environment("e", "u", 1, DesiredState.RUNNING, EnvironmentStatus.RUNNING)
        self.trouble: Exception | None = None
        self.served: dict[str, TerminalSession] = {}
        self.has_ended: set[str] = set()
        self.found = 0
        self.closed_as: list[ClosedSession] = []
        self.while_asked: OpenedSession | None = None
        starter, store = cast("ShellStarter", _Starter(self)), cast("SessionStore", _Store(self))
        environments = cast("Environments", _Environments(self))
        self.takeovers = Takeovers(cast("Sessions", _Sessions(self)), store, environments, starter, replica_id="here")


class _Sessions:
    def __init__(self, world: World) -> None:
        self._world = world

    def find(self, caller: Caller, environment_id: str, session_id: str) -> TerminalSession:
        if session_id in self._world.served:
            return self._world.served[session_id]
        raise SessionNotFoundError

    def has(self, session_id: str) -> bool:
        return session_id in self._world.served or session_id in self._world.has_ended

    async def adopt(self, record: OpenedSession, shell: Shell) -> TerminalSession:
        session = cast("TerminalSession", object())
        self._world.served[record.id] = session
        return session


class _Store:
    def __init__(self, world: World) -> None:
        self._world = world

    async def find(self, session_id: str) -> OpenedSession | None:
        await asyncio.sleep(0)
        found = self._world.records.get(session_id)
        if (raced := self._world.while_asked) is not None:
            self._world.while_asked = None
            await self._world.takeovers.adopt(raced)
        return found

    async def living(self) -> AbstractSet[str]:
        return self._world.alive

    async def claim(self, session: OpenedSession, owner: str) -> OpenedSession | None:
        record = self._world.records[session.id]
        if record.is_closed or record.owner != session.owner:
            return None
        self._world.records[session.id] = replace(record, owner=owner)
        return self._world.records[session.id]

    async def closed(self, session: ClosedSession) -> None:
        self._world.closed_as.append(session)
        self._world.records[session.id] = replace(self._world.records[session.id], is_closed=True)

    async def lost(self, limit: int) -> list[OpenedSession]:
        open_ones = [record for record in self._world.records.values() if not record.is_closed]
        return [record for record in open_ones if record.owner not in self._world.alive]


class _Environments:
    def __init__(self, world: World) -> None:
        self._world = world

    async def find(self, environment_id: str) -> Environment | None:
        return self._world.environment


class _Starter:
    def __init__(self, world: World) -> None:
        self._world = world

    async def find(self, environment: Environment, session_id: str) -> Shell:
        await asyncio.sleep(0)
        self._world.found += 1
        if self._world.trouble is not None:
            raise self._world.trouble
        return cast("Shell", object())


async def test_many_who_ask_at_once_share_one_takeover() -> None:
    world = World(_LEFT)
    found = await asyncio.gather(*(world.takeovers.find(_CALLER, "e", "s") for _ in range(5)))
    assert set(map(id, found)) == {id(world.served["s"])}
    assert world.found == 1


async def test_one_that_the_upkeep_takes_over_while_the_store_is_asked_is_found() -> None:
    world = World(_LEFT)
    world.while_asked = _LEFT
    world.records["s"] = _LEFT
    assert await world.takeovers.find(_CALLER, "e", "s") is world.served["s"]


async def test_a_living_owner_is_left_alone() -> None:
    world = World(_LEFT)
    world.alive.add("dead")
    assert await world.takeovers.find(_CALLER, "e", "s") == _LEFT
    await world.takeovers.care_for_the_lost()
    assert not world.served


@pytest.mark.parametrize(
    "record",
    [
        replace(_LEFT, is_held=False),
        replace(_LEFT, is_closed=True),
        replace(_LEFT, user_id="another"),
        replace(_LEFT, environment_id="another"),
    ],
    ids=["not held", "closed", "of another user", "elsewhere"],
)
async def test_what_cannot_be_had_is_not_found(record: OpenedSession) -> None:
    world = World(record)
    with pytest.raises(SessionNotFoundError):
        await world.takeovers.find(_CALLER, "e", "s")
    assert not world.found


async def test_one_that_this_replica_is_ending_is_not_found() -> None:
    world = World(replace(_LEFT, owner="here"))
    world.has_ended.add("s")
    with pytest.raises(SessionNotFoundError):
        await world.takeovers.find(_CALLER, "e", "s")


async def test_a_faster_replica_is_asked_the_next_time() -> None:
    world = World(replace(_LEFT, owner="faster"))
    with pytest.raises(OwnerSilentError):
        await world.takeovers.adopt(_LEFT)
    assert not world.closed_as


async def test_a_shell_that_has_ended_is_closed() -> None:
    world = World(_LEFT)
    world.trouble = SessionNotFoundError()
    with pytest.raises(SessionNotFoundError):
        await world.takeovers.find(_CALLER, "e", "s")
    assert [closed.reason for closed in world.closed_as] == [CloseReason.LOST]


async def test_a_shell_of_an_environment_that_was_stopped_is_not_looked_for() -> None:
    world = World(_LEFT)
    world.environment = replace(world.environment, desired=DesiredState.STOPPED)
    with pytest.raises(SessionNotFoundError):
        await world.takeovers.find(_CALLER, "e", "s")
    assert not world.found
    assert [closed.reason for closed in world.closed_as] == [CloseReason.ENVIRONMENT_STOPPED]


async def test_one_whose_machine_is_away_is_tried_again() -> None:
    world = World(_LEFT)
    world.trouble = UnavailableError("away")
    with pytest.raises(UnavailableError):
        await world.takeovers.find(_CALLER, "e", "s")
    assert world.takeovers.is_under_way("s")
    await world.takeovers.care_for_the_lost()
    assert not world.served
    world.trouble = None
    await world.takeovers.care_for_the_lost()
    assert "s" in world.served
    assert not world.takeovers.is_under_way("s")
    assert not world.closed_as


async def test_what_ended_with_a_dead_owner_is_closed_as_lost() -> None:
    world = World(replace(_LEFT, is_held=False))
    await world.takeovers.care_for_the_lost()
    assert [closed.reason for closed in world.closed_as] == [CloseReason.LOST]
