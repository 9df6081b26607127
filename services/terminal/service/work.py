"""Transfers and commands under way: how many a user may have, and who can end them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol, TypeVar

import structlog

from libs.common.errors import DevPocketError, ErrorKind
from libs.runtime.port import (
    DriverError,
    RuntimeUnavailableError,
    WorkspaceNotFoundError,
    WorkspaceNotRunningError,
    WorkspaceRejectedError,
)
from services.terminal.domain import Caller, Closing, Environment, EnvironmentNotRunningError
from services.terminal.service.connections import Connections
from services.terminal.workspace.errors import CommandRejectedError, CutShortError, TooManyAtOnceError, machine_away

_KINDS = {
    1001: ErrorKind.UNAVAILABLE,
    4401: ErrorKind.UNAUTHENTICATED,
    4404: ErrorKind.NOT_FOUND,
    4409: ErrorKind.CONFLICT,
}

log = structlog.get_logger(__name__)


class EndedError(DevPocketError):
    """It was ended from our side: what a WebSocket would be closed with, as an answer."""

    def __init__(self, closing: Closing) -> None:
        super().__init__(closing.message)
        self.kind = _KINDS.get(closing.socket_code, ErrorKind.UNAVAILABLE)
        self.code = closing.code
        if self.kind is ErrorKind.UNAUTHENTICATED:
            self.headers["WWW-Authenticate"] = "Bearer"


class Closable(Protocol):
    """Something in a workspace that a connection holds."""

    async def close(self) -> None:
        """Safe to call twice."""
        ...


_Held = TypeVar("_Held", bound=Closable)


class Work:
    """One transfer or command, as a connection that can be closed: its process in the workspace is ended then."""

    def __init__(self, caller: Caller, environment_id: str) -> None:
        self.caller = caller
        self.environment_id = environment_id
        self.closing: Closing | None = None
        self._closed = asyncio.Event()
        self._streams: list[Closable] = []
        self._endings: set[asyncio.Task[None]] = set()
        self._waiting_since: float | None = None

    def close(self, closing: Closing) -> None:
        """End it; returns at once."""
        if self.closing is None:
            self.closing = closing
            self._closed.set()
            for stream in self._streams:
                self._end(stream)

    async def closed(self) -> None:
        """Until `close` is called."""
        await self._closed.wait()

    def stalled_for(self) -> float:
        """For how many seconds the client has neither sent nor taken anything."""
        since = self._waiting_since
        return 0.0 if since is None else asyncio.get_running_loop().time() - since

    @contextmanager
    def waiting_for_client(self) -> Iterator[None]:
        """For the length of the block it is the client's turn."""
        self._waiting_since = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            self._waiting_since = None

    def holds(self, stream: _Held) -> _Held:
        """Have `close` end this one as well."""
        self._streams.append(stream)
        if self.closing is not None:
            self._end(stream)
        return stream

    def _end(self, stream: Closable) -> None:
        ending = asyncio.ensure_future(stream.close())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)


class Workbench:
    """Lets at most `limit` of `what` (in plural) per user be under way in this replica.

    `ends_with_environment`: it is ended as soon as the environment is being stopped, and not when its workspace has
    gone.
    """

    def __init__(self, connections: Connections, *, limit: int, what: str, ends_with_environment: bool = False) -> None:
        self._connections = connections
        self._limit = limit
        self._what = what
        self._ends_with_environment = ends_with_environment
        self._busy: Counter[str] = Counter()

    @asynccontextmanager
    async def working(self, caller: Caller, environment: Environment, *, lasts: bool = False) -> AsyncIterator[Work]:
        """For the length of the block; `lasts`: it does not end by itself.

        Raises TooManyAtOnceError, and in the runtime's stead what it means to the caller: EnvironmentNotRunningError,
        UnavailableError, CommandRejectedError, CutShortError, EndedError.
        """
        user_id = caller.user_id
        if self._busy[user_id] >= self._limit:
            raise TooManyAtOnceError(self._limit, self._what)
        self._busy[user_id] += 1
        work = Work(caller, environment.id)
        try:
            holding = self._connections.holding(
                work, needs_running=self._ends_with_environment, ends_by_itself=not lasts
            )
            with holding:
                yield work
        except (DriverError, CutShortError, BrokenPipeError, TimeoutError) as error:
            if work.closing is not None:
                raise EndedError(work.closing) from error
            raise _meaning(error, environment) from error
        finally:
            self._busy[user_id] -= 1
            if not self._busy[user_id]:
                del self._busy[user_id]


def _meaning(error: Exception, environment: Environment) -> DevPocketError:
    reason = error.reason if isinstance(error, DriverError) else type(error).__name__
    log.warning("work in a workspace failed", environment_id=environment.id, reason=reason, error=str(error))
    if isinstance(error, WorkspaceNotFoundError | WorkspaceNotRunningError):
        return EnvironmentNotRunningError()
    if isinstance(error, RuntimeUnavailableError):
        return machine_away(error.reason)
    if isinstance(error, WorkspaceRejectedError):
        return CommandRejectedError(str(error))
    return error if isinstance(error, CutShortError) else CutShortError()
