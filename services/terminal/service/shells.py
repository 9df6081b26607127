"""A user's open shells on all replicas: looking at them, and ending them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import structlog

from services.terminal.domain import OwnerSilentError, SessionNotFoundError
from services.terminal.ports import LiveSession, OpenedSession, SessionControl, SessionStore, Shell
from services.terminal.service.sessions import Sessions, close_lost
from services.terminal.service.takeovers import Takeovers

log = structlog.get_logger(__name__)


class Shells:
    """The store says which sessions are open; what changes all the time is asked of the replica that owns them.

    So nothing is written while somebody works, and looking costs one round trip to each session of another replica.
    """

    def __init__(
        self,
        sessions: Sessions,
        store: SessionStore,
        control: SessionControl,
        takeovers: Takeovers,
        *,
        replica_id: str,
    ) -> None:
        self._sessions = sessions
        self._takeovers = takeovers
        self._store = store
        self._control = control
        self._replica_id = replica_id

    async def list(self, user_id: str, environment_id: str | None) -> Sequence[Shell]:
        """The newest first. Those that have ended with their owner are left out, if not yet marked as closed."""
        opened, living = await asyncio.gather(self._store.open_of(user_id, environment_id), self._store.living())
        shells = await asyncio.gather(*(self._look(session, living) for session in opened))
        return [shell for shell in shells if shell is not None]

    async def get(self, user_id: str, session_id: str) -> Shell:
        """One of the user's own. Raises SessionNotFoundError."""
        session = await self._own(user_id, session_id)
        shell = await self._look(session, await self._store.living())
        if shell is None:
            raise SessionNotFoundError
        return shell

    async def close(self, user_id: str, session_id: str) -> None:
        """End one of the user's own, wherever it is; with a dead owner it is taken over, or closed as lost.

        Raises SessionNotFoundError, OwnerSilentError, UnavailableError.
        """
        session = await self._own(user_id, session_id)
        if session.owner != self._replica_id and session.owner in await self._store.living():
            found = await self._control.close(session)
        elif session.is_held:
            await self._takeovers.ensure_here(session)
            found = self._sessions.close(session_id)
        elif session.owner == self._replica_id:
            found = self._sessions.close(session_id)
        else:
            for closed in close_lost([session]):
                await self._store.closed(closed)
            found = True
        if not found:
            raise SessionNotFoundError
        log.info("session closed by its user", session_id=session_id)

    async def _own(self, user_id: str, session_id: str) -> OpenedSession:
        session = await self._store.find(session_id)
        if session is None or session.is_closed or session.user_id != user_id:
            raise SessionNotFoundError
        return session

    async def _look(self, session: OpenedSession, living: AbstractSet[str]) -> Shell | None:
        """None when it is over."""
        if session.owner not in living or self._takeovers.is_under_way(session.id):
            return Shell(session, None) if session.is_held else None
        try:
            live = await self._live(session)
        except OwnerSilentError:
            return Shell(session, None)
        return None if live is None else Shell(session, live)

    async def _live(self, session: OpenedSession) -> LiveSession | None:
        if session.owner == self._replica_id:
            return self._sessions.describe(session.id)
        return await self._control.describe(session)
