"""Who may look at an environment's ports: cookies that tickets are exchanged for, checked anew at every request."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from libs.common.errors import UnauthenticatedError
from libs.runtime.port import ExecRuntime, ListeningPort
from services.terminal.domain import Caller, Environment, SocketKind
from services.terminal.ports import Grant, GrantStore, Users
from services.terminal.service.access import Access
from services.terminal.service.tickets import TicketDesk
from services.terminal.service.work import Workbench

_SECRET_BYTES = 32


class Previews:
    """Grants are random and stored hashed. One that is not used for `idle_seconds` is void, which must not be longer
    than revocations are remembered; and so is any after `life_seconds`."""

    def __init__(
        self,
        access: Access,
        tickets: TicketDesk,
        store: GrantStore,
        users: Users,
        *,
        workbench: Workbench,
        runtime: ExecRuntime,
        clock: Callable[[], datetime],
        is_revoked: Callable[[str], bool],
        idle_seconds: int,
        life_seconds: int,
    ) -> None:
        self._access = access
        self._tickets = tickets
        self._store = store
        self._users = users
        self._workbench = workbench
        self._runtime = runtime
        self._clock = clock
        self._is_revoked = is_revoked
        self._idle_seconds = idle_seconds
        self.life_seconds = life_seconds
        self.working = workbench.working

    async def redeem(self, ticket: str, environment_id: str) -> Caller:
        """Who got this ticket. Raises UnauthenticatedError, UnavailableError."""
        return await self._tickets.redeem(ticket, environment_id, SocketKind.PREVIEW)

    async def grant(self, caller: Caller, environment_id: str) -> str:
        """A secret for a cookie that opens the previews of this environment. Raises UnavailableError."""
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        until = self._clock() + timedelta(seconds=self.life_seconds)
        await self._store.put(_hash(secret), Grant(caller, environment_id, until), self._idle_seconds)
        return secret

    async def recall(self, secret: str, environment_id: str) -> Caller | None:
        """Who was given this secret, if it is still good here. Raises UnavailableError."""
        grant = await self._store.find(_hash(secret), self._idle_seconds)
        if grant is None or grant.environment_id != environment_id:
            return None
        if self._clock() >= grant.until or self._is_revoked(grant.caller.login_id):
            await self._store.drop(_hash(secret))
            return None
        return grant.caller

    async def admit(self, caller: Caller, environment_id: str) -> Environment:
        """The caller's environment, running. Raises UnauthenticatedError, EnvironmentNotFoundError and others."""
        user = (await self._users.find_many([caller.user_id])).get(caller.user_id)
        if user is not None and not user.may_connect:
            raise UnauthenticatedError("This account is not active")
        return await self._access.to_running(caller, environment_id)

    async def ports(self, caller: Caller, environment_id: str) -> Sequence[ListeningPort]:
        """What listens in the caller's environment. Raises EnvironmentNotRunningError, UnavailableError and others."""
        environment = await self.admit(caller, environment_id)
        async with self._workbench.working(caller, environment):
            return await self._runtime.ports(environment.ref)


def _hash(secret: str) -> str:
    # 256 random bits cannot be guessed, so one round of a fast hash is enough.
    return hashlib.sha256(secret.encode()).hexdigest()
