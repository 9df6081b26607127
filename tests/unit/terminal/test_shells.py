"""A user's shells on all replicas, with the other replicas played."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from libs.runtime.port import TerminalSize
from services.terminal.domain import CloseReason, OwnerSilentError, SessionNotFoundError
from services.terminal.ports import ClosedSession, LiveSession, OpenedSession, SessionStore, Shell
from services.terminal.service.sessions import Sessions
from services.terminal.service.shells import Shells
from services.terminal.service.takeovers import Takeovers

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_LIVE = LiveSession(1, 10, _NOW, TerminalSize())


def session(name: str, owner: str, user: str = "u", *, is_held: bool = False) -> OpenedSession:
    return OpenedSession(name, "e", user, owner, _NOW, is_held=is_held)


class Replicas:
    """The store, what this replica (`here`) holds and what the others answer; `silent` ones do not."""

    def __init__(self, *opened: OpenedSession) -> None:
        self.opened = {one.id: one for one in opened}
        self.held = set(self.opened)
        self.alive = {one.owner for one in opened}
        self.silent: set[str] = set()
        self.ended: list[str] = []
        self.written: list[ClosedSession] = []
        here = cast("Sessions", _Here(self))
        takeovers = cast("Takeovers", _Takeovers(self))
        self.shells = Shells(here, cast("SessionStore", _Store(self)), _Others(self), takeovers, replica_id="here")

    def describe(self, session_id: str) -> LiveSession | None:
        return _LIVE if session_id in self.held else None

    def close(self, session_id: str) -> bool:
        if session_id not in self.held:
            return False
        self.ended.append(session_id)
        return True


class _Here:
    def __init__(self, replicas: Replicas) -> None:
        self.describe = replicas.describe
        self.close = replicas.close


class _Takeovers:
    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas

    async def ensure_here(self, record: OpenedSession) -> None:
        self._replicas.held.add(record.id)

    def is_under_way(self, session_id: str) -> bool:
        return False


class _Others:
    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas

    async def describe(self, session: OpenedSession) -> LiveSession | None:
        self._heard(session)
        return self._replicas.describe(session.id)

    async def close(self, session: OpenedSession) -> bool:
        self._heard(session)
        return self._replicas.close(session.id)

    def _heard(self, session: OpenedSession) -> None:
        assert session.owner != "here"
        if session.owner in self._replicas.silent:
            raise OwnerSilentError


class _Store:
    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas

    async def find(self, session_id: str) -> OpenedSession | None:
        return self._replicas.opened.get(session_id)

    async def open_of(self, user_id: str, environment_id: str | None) -> Sequence[OpenedSession]:
        return [one for one in self._replicas.opened.values() if one.user_id == user_id]

    async def living(self) -> AbstractSet[str]:
        return self._replicas.alive

    async def closed(self, session: ClosedSession) -> None:
        self._replicas.written.append(session)


async def test_all_replicas_are_asked_and_a_silent_one_hides_only_what_it_knows() -> None:
    here, there, silent = session("a", "here"), session("b", "there"), session("c", "silent")
    replicas = Replicas(here, there, silent, session("d", "here", "another user"))
    replicas.silent.add("silent")
    shells = await replicas.shells.list("u", None)
    assert shells == [Shell(here, _LIVE), Shell(there, _LIVE), Shell(silent, None)]
    assert [shell.is_attachable for shell in shells] == [True, True, False]
    assert await replicas.shells.get("u", "c") == Shell(silent, None)


async def test_what_is_over_or_has_a_dead_owner_is_not_shown() -> None:
    replicas = Replicas(session("a", "here"), session("b", "there"), session("c", "dead"))
    replicas.held -= {"a", "b"}
    replicas.alive.discard("dead")
    assert await replicas.shells.list("u", None) == []
    for name in ("a", "b", "c", "never was"):
        with pytest.raises(SessionNotFoundError):
            await replicas.shells.get("u", name)


async def test_one_that_outlives_its_owner_is_shown_and_taken_over_to_be_ended() -> None:
    left = session("a", "dead", is_held=True)
    replicas = Replicas(left)
    replicas.held.clear()
    replicas.alive.clear()
    assert await replicas.shells.list("u", None) == [Shell(left, None)]
    assert (await replicas.shells.get("u", "a")).is_attachable
    await replicas.shells.close("u", "a")
    assert replicas.ended == ["a"]
    assert not replicas.written


@pytest.mark.parametrize("owner", ["here", "there"])
async def test_its_owner_ends_it(owner: str) -> None:
    replicas = Replicas(session("a", owner))
    await replicas.shells.close("u", "a")
    assert replicas.ended == ["a"]
    replicas.held.clear()
    with pytest.raises(SessionNotFoundError):
        await replicas.shells.close("u", "a")
    assert replicas.written == []


async def test_with_a_dead_owner_it_is_closed_as_lost() -> None:
    replicas = Replicas(session("a", "dead"))
    replicas.alive.clear()
    await replicas.shells.close("u", "a")
    assert [(one.id, one.reason) for one in replicas.written] == [("a", CloseReason.LOST)]


async def test_an_owner_that_lives_and_is_silent_is_not_given_up() -> None:
    replicas = Replicas(session("a", "silent"))
    replicas.silent.add("silent")
    with pytest.raises(OwnerSilentError):
        await replicas.shells.close("u", "a")
    assert replicas.written == []


async def test_nobody_ends_a_shell_of_another_user() -> None:
    replicas = Replicas(session("a", "here"))
    for call in (replicas.shells.get, replicas.shells.close):
        answer: Any = call
        with pytest.raises(SessionNotFoundError):
            await answer("somebody else", "a")
    assert replicas.ended == []
