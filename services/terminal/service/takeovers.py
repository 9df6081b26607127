"""Sessions whose owner is gone or silent, and whose shells live on: whoever is asked first takes them over."""

from __future__ import annotations

import asyncio

import structlog

from libs.common.errors import UnavailableError
from services.terminal.domain import Caller, OwnerSilentError, SessionNotFoundError
from services.terminal.ports import Environments, OpenedSession, SessionStore
from services.terminal.service.sessions import Sessions, close_lost, why_ended
from services.terminal.service.starting import ShellStarter
from services.terminal.sessions.session import TerminalSession

_LOST_BATCH = 200
# A workspace is entered for each, which costs more processor time than everything else about it.
_AT_ONCE = 4

log = structlog.get_logger(__name__)


class Takeovers:
    """An owner that is alive after all loses nothing: its holder tells it, and its clients come here."""

    def __init__(
        self,
        sessions: Sessions,
        store: SessionStore,
        environments: Environments,
        starter: ShellStarter,
        *,
        replica_id: str,
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._environments = environments
        self._starter = starter
        self._replica_id = replica_id
        self._adopting: dict[str, asyncio.Task[TerminalSession]] = {}
        self._unreachable: dict[str, OpenedSession] = {}

    async def find(self, caller: Caller, environment_id: str, session_id: str) -> TerminalSession | OpenedSession:
        """The session if this replica has it or nobody has it any more, else what is known of it.

        Raises SessionNotFoundError, ShuttingDownError, UnavailableError.
        """
        here = self._here(caller, environment_id, session_id)
        if here is not None:
            return here
        record, living = await asyncio.gather(self._store.find(session_id), self._store.living())
        if record is None or (record.user_id, record.environment_id) != (caller.user_id, environment_id):
            raise SessionNotFoundError
        if record.owner != self._replica_id and record.owner in living:
            return record
        # The upkeep may have taken it over while the store was asked.
        here = self._here(caller, environment_id, session_id)
        if here is not None:
            return here
        if record.is_closed or not record.is_held or self._sessions.has(session_id):
            raise SessionNotFoundError
        return await self.adopt(record)

    def _here(self, caller: Caller, environment_id: str, session_id: str) -> TerminalSession | None:
        try:
            return self._sessions.find(caller, environment_id, session_id)
        except SessionNotFoundError:
            return None

    async def adopt(self, record: OpenedSession) -> TerminalSession:
        """Make it this replica's. Raises SessionNotFoundError when its shell has ended, else as `find`."""
        adopting = self._adopting.get(record.id)
        if adopting is None:
            adopting = self._adopting[record.id] = asyncio.create_task(self._adopt(record))
            adopting.add_done_callback(lambda _: self._adopting.pop(record.id, None))
        return await asyncio.shield(adopting)

    async def ensure_here(self, record: OpenedSession) -> None:
        """Adopt it, unless this replica serves it or is about to end it. Raises as `adopt`."""
        if not self._sessions.has(record.id):
            await self.adopt(record)

    def is_under_way(self, session_id: str) -> bool:
        """Whether this replica is taking it over right now, or would if it could reach the shell."""
        return session_id in self._adopting or session_id in self._unreachable

    async def care_for_the_lost(self) -> None:
        """Take over what dead replicas have left, and close what has ended with them."""
        lost = {record.id: record for record in await self._store.lost(_LOST_BATCH)} | self._unreachable
        limit = asyncio.Semaphore(_AT_ONCE)

        async def care(record: OpenedSession) -> None:
            async with limit:
                await self._care(record)

        await asyncio.gather(*(care(record) for record in lost.values()))

    async def _care(self, record: OpenedSession) -> None:
        if not record.is_held:
            for closed in close_lost([record]):
                await self._store.closed(closed)
            log.info("closed a session of a dead replica", session_id=record.id)
            return
        try:
            await self.adopt(record)
        except (SessionNotFoundError, UnavailableError) as error:
            log.info("a session of a dead replica is not taken over", session_id=record.id, why=str(error))

    async def _adopt(self, record: OpenedSession) -> TerminalSession:
        environment = await self._environments.find(record.environment_id)
        claimed = await self._store.claim(record, self._replica_id)
        self._unreachable.pop(record.id, None)
        if claimed is None:
            # Another one was faster; its answer comes the next time.
            raise OwnerSilentError
        if environment is None or environment.ends_shell(record.generation):
            await self._close(claimed)
            raise SessionNotFoundError
        try:
            shell = await self._starter.find(environment, record.id)
        except SessionNotFoundError:
            await self._close(claimed)
            raise
        except UnavailableError:
            self._unreachable[record.id] = claimed
            raise
        log.info("took a session over", session_id=record.id, before=record.owner)
        return await self._sessions.adopt(claimed, shell)

    async def _close(self, record: OpenedSession) -> None:
        environment = await self._environments.find(record.environment_id)
        for closed in close_lost([record], why_ended(environment, record.generation)):
            await self._store.closed(closed)
