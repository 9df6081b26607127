"""Sessions of this replica: opening, finding and ending them, and saying so on the bus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta

import structlog

from libs.common.clock import Clock
from libs.common.ids import new_id
from libs.runtime.holder.shells import Shell
from libs.runtime.port import TerminalSize
from services.terminal.domain import (
    Caller,
    CloseReason,
    Environment,
    SessionNotFoundError,
    ShuttingDownError,
    StartingUpError,
)
from services.terminal.ports import ClosedSession, Environments, LiveSession, OpenedSession, SessionStore
from services.terminal.service.starting import ShellStarter
from services.terminal.sessions.session import SessionLimits, TerminalSession

# Hang-up, kill, terminate: a shell that one of these has ended may have been ended with its environment, and the event
# that says so is on its way.
_ENDED_FROM_OUTSIDE = frozenset({None, 128 + 1, 128 + 9, 128 + 15})
_NEWS_SECONDS = 0.5
_LOOK_EVERY_SECONDS = 0.05

log = structlog.get_logger(__name__)


class Sessions:
    """All live sessions that this replica owns."""

    def __init__(
        self,
        starter: ShellStarter,
        store: SessionStore,
        environments: Environments,
        *,
        limits: SessionLimits,
        replica_id: str,
        per_user: int,
        clock: Clock,
        is_revoked: Callable[[str], bool],
    ) -> None:
        self._starter = starter
        self._store = store
        self._environments = environments
        self._limits = limits
        self._replica_id = replica_id
        self._per_user = per_user
        self._clock = clock
        self._is_revoked = is_revoked
        self._sessions: dict[str, TerminalSession] = {}
        self._supervisors: dict[str, asyncio.Task[None]] = {}
        self._served: set[TerminalSession] = set()
        self._past_typed = self._past_output = 0
        self._unwritten: dict[str, ClosedSession] = {}
        self._has_begun = self._draining = False

    def __len__(self) -> int:
        return len(self._sessions)

    def environment_ids(self) -> set[str]:
        """Environments in which this replica has shells."""
        return {session.environment_id for session in self._sessions.values()}

    def user_ids(self) -> set[str]:
        """Users who have shells in this replica."""
        return {session.record.user_id for session in self._sessions.values()}

    @property
    def attached(self) -> int:
        """How many of them somebody is connected to."""
        return sum(1 for session in self._sessions.values() if session.attachments)

    def traffic(self) -> tuple[int, int]:
        """Bytes typed into all shells there ever were in this process, and bytes that they have put out."""
        typed = sum(session.typed_bytes for session in self._served)
        put_out = sum(session.output_bytes for session in self._served)
        return self._past_typed + typed, self._past_output + put_out

    def begin(self) -> None:
        """Others know this replica: sessions from now on are looked for here, and not taken for orphans."""
        self._has_begun = True

    def _check_open(self) -> None:
        if self._draining:
            raise ShuttingDownError
        if not self._has_begun:
            raise StartingUpError

    async def open(self, caller: Caller, environment: Environment, size: TerminalSize) -> TerminalSession:
        """Start a shell. Raises EnvironmentNotRunningError, StartingUpError, ShuttingDownError, UnavailableError."""
        self._check_open()
        self._evict(caller.user_id)
        session_id = new_id()
        shell = await self._starter.start(environment, session_id, size)
        record = OpenedSession(
            id=session_id,
            environment_id=environment.id,
            user_id=caller.user_id,
            owner=self._replica_id,
            opened_at=self._clock(),
            login_id=caller.login_id,
            generation=environment.generation,
            is_held=shell.is_held,
        )
        try:
            await self._store.opened(record)
        except BaseException:
            await shell.close()
            raise
        log.info("session opened", session_id=session_id, is_held=shell.is_held)
        return self._serve(TerminalSession(record, shell, self._limits))

    async def adopt(self, record: OpenedSession, shell: Shell) -> TerminalSession:
        """Serve a shell that another replica has served before. Raises ShuttingDownError."""
        session = TerminalSession(record, shell, self._limits)
        await session.catch_up()
        self._serve(session)
        if self._draining:
            raise ShuttingDownError
        return session

    def _serve(self, session: TerminalSession) -> TerminalSession:
        self._sessions[session.id] = session
        self._served.add(session)
        self._supervisors[session.id] = asyncio.create_task(self._supervise(session))
        if self._draining:
            session.end(CloseReason.SHUTDOWN)
        elif self._is_revoked(session.record.login_id):
            self._end(session, CloseReason.REVOKED)
        return session

    def has(self, session_id: str) -> bool:
        """Whether this replica serves this session, or has yet to write down that it has ended."""
        return session_id in self._supervisors

    def find(self, caller: Caller, environment_id: str, session_id: str) -> TerminalSession:
        """A session to come back to. Raises SessionNotFoundError, StartingUpError, ShuttingDownError."""
        self._check_open()
        session = self._sessions.get(session_id)
        if (
            session is None
            or session.environment_id != environment_id
            or session.record.user_id != caller.user_id
            or session.ending is not None
        ):
            raise SessionNotFoundError
        return session

    def describe(self, session_id: str) -> LiveSession | None:
        """What its user may want to know; None for a session that is over, or not of this replica."""
        session = self._sessions.get(session_id)
        if session is None or session.ending is not None or session.exit_code is not None:
            return None
        return LiveSession(
            connections=len(session.attachments),
            offset=session.ring.end,
            last_active_at=self._clock() - timedelta(seconds=session.idle_for),
            size=session.size,
        )

    def close(self, session_id: str) -> bool:
        """End this shell, as its user wishes; False when this replica holds it no more."""
        session = self._sessions.get(session_id)
        if session is None or session.ending is not None or session.exit_code is not None:
            return False
        self._end(session, CloseReason.CLOSED)
        return True

    def forget_if_over(self, session: TerminalSession) -> None:
        """A client has seen the exit code: nobody will come back for more."""
        if session.exit_code is not None and not session.attachments:
            self._sessions.pop(session.id, None)

    def environment_changed(self, environment: Environment) -> None:
        """End shells that cannot go on."""
        reason = _why(environment)
        for session in list(self._sessions.values()):
            if session.environment_id == environment.id and environment.ends_shell(session.record.generation):
                self._end(session, reason)

    def login_revoked(self, login_id: str) -> None:
        """End the shells that this sign-in opened, but not those that somebody still holds with a good one."""
        for session in list(self._sessions.values()):
            others = any(attachment.caller.login_id != login_id for attachment in session.attachments)
            if session.record.login_id == login_id and not others:
                self._end(session, CloseReason.REVOKED)

    def end_user(self, user_id: str) -> None:
        """End all shells of this user."""
        for session in list(self._sessions.values()):
            if session.record.user_id == user_id:
                self._end(session, CloseReason.REVOKED)

    def end_detached(self, after_seconds: float) -> None:
        """End shells that nobody has come back to."""
        for session in list(self._sessions.values()):
            if session.detached_for > after_seconds:
                self._end(session, CloseReason.IDLE)

    def forget_bursts(self) -> None:
        """Give back memory that only a flood of output needed."""
        for session in self._sessions.values():
            session.forget_burst()

    async def drain(self) -> None:
        """Take no new sessions and end all that there are, with their events written and, if possible, published.

        Shells that are held live on: they wait for whoever takes them over.
        """
        self._draining = True
        for session in list(self._sessions.values()):
            self._end(session, CloseReason.SHUTDOWN)
        ids = list(self._supervisors)
        await asyncio.gather(*self._supervisors.values(), return_exceptions=True)
        await self._store.publish(ids)

    async def write_leftovers(self) -> None:
        """Try again to store ends that could not be stored when they happened."""
        for closed in list(self._unwritten.values()):
            await self._store.closed(closed)
            self._unwritten.pop(closed.id, None)

    def _end(self, session: TerminalSession, reason: CloseReason) -> None:
        self._forget(session)
        session.end(reason)

    def _forget(self, session: TerminalSession) -> None:
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]

    def _evict(self, user_id: str) -> None:
        """Make room for one more shell of this user, at the cost of the one that was left alone the longest."""
        own = [session for session in self._sessions.values() if session.record.user_id == user_id]
        detached = sorted((s for s in own if not s.attachments), key=lambda s: s.detached_for, reverse=True)
        for session in detached[: max(len(own) - self._per_user + 1, 0)]:
            self._end(session, CloseReason.EVICTED)

    async def _supervise(self, session: TerminalSession) -> None:
        try:
            code = await session.run()
            if session.outlives_us:
                self._forget(session)
                await session.close()
                return
            reason = session.ending or await self._reason(session, code)
            if reason is CloseReason.EXIT and code is not None:
                session.exited(code)
            else:
                self._end(session, reason)
            await session.close()
            await self._write_closed(session, reason, code)
        finally:
            self._served.discard(session)
            self._past_typed += session.typed_bytes
            self._past_output += session.output_bytes
            if self._supervisors.get(session.id) is asyncio.current_task():
                del self._supervisors[session.id]

    async def _reason(self, session: TerminalSession, code: int | None) -> CloseReason:
        if code not in _ENDED_FROM_OUTSIDE:
            return CloseReason.EXIT
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _NEWS_SECONDS
        while loop.time() < deadline and session.ending is None:
            try:
                environment = await self._environments.find(session.environment_id)
            except Exception as error:
                log.warning("cannot ask why a shell ended", session_id=session.id, error=repr(error))
                break
            reason = why_ended(environment, session.record.generation)
            if reason is not CloseReason.LOST:
                return reason
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        return session.ending or (CloseReason.LOST if code is None else CloseReason.EXIT)

    async def _write_closed(self, session: TerminalSession, reason: CloseReason, code: int | None) -> None:
        closed = ClosedSession(
            id=session.id,
            environment_id=session.environment_id,
            user_id=session.record.user_id,
            reason=reason,
            exit_code=code if reason is CloseReason.EXIT else None,
            output_bytes=session.ring.end,
        )
        log.info("session closed", session_id=session.id, reason=reason.value, exit_code=code)
        try:
            await self._store.closed(closed)
        except Exception as error:
            self._unwritten[closed.id] = closed
            log.warning("end of a session not stored yet", session_id=session.id, error=repr(error))


def _why(environment: Environment | None) -> CloseReason:
    if environment is None or environment.is_deleted:
        return CloseReason.ENVIRONMENT_DELETED
    return CloseReason.ENVIRONMENT_STOPPED


def why_ended(environment: Environment | None, generation: int) -> CloseReason:
    """Why a shell that was opened in `generation` is gone, as far as its environment tells; else LOST."""
    if environment is None or environment.ends_shell(generation):
        return _why(environment)
    return CloseReason.LOST


def close_lost(sessions: Iterable[OpenedSession], reason: CloseReason = CloseReason.LOST) -> list[ClosedSession]:
    """How sessions end whose replica has died: nobody knows what they put out last."""
    return [ClosedSession(session.id, session.environment_id, session.user_id, reason, None, 0) for session in sessions]
