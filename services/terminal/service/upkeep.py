"""What has to be done again and again: heartbeats, time-outs, and catching what an event has failed to tell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from libs.common.contracts.events import EnvironmentStatusChanged, EnvironmentWish, EventData
from libs.common.contracts.users import UserState
from services.terminal.domain import CLOSINGS, CloseReason, Environment, User
from services.terminal.ports import ConnectionSlots, Environments, SessionStore, Users
from services.terminal.service.connections import Connections
from services.terminal.service.sessions import Sessions
from services.terminal.service.takeovers import Takeovers

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UpkeepTimes:
    """All in seconds: how often to look, how long a session may be alone, a client take nothing."""

    every_seconds: float
    detached_seconds: float
    stalled_seconds: float


class Upkeep:
    """Looks after the sessions and connections of this replica, and after the sessions of dead ones."""

    def __init__(
        self,
        sessions: Sessions,
        connections: Connections,
        store: SessionStore,
        environments: Environments,
        slots: ConnectionSlots,
        *,
        users: Users,
        takeovers: Takeovers,
        replica_id: str,
        times: UpkeepTimes,
    ) -> None:
        self._sessions = sessions
        self._connections = connections
        self._store = store
        self._environments = environments
        self._users = users
        self._takeovers = takeovers
        self._slots = slots
        self._replica_id = replica_id
        self._times = times

    def login_revoked(self, login_id: str) -> None:
        """Close what this sign-in has open, at once."""
        self._connections.close_login(login_id)
        self._sessions.login_revoked(login_id)

    async def environment_event(self, data: EventData) -> None:
        """An event as every replica hears it: close at once what cannot go on.

        It may come twice, late or before the shared consumer has stored it, so the read model decides, not the event.
        """
        if not isinstance(data, EnvironmentWish | EnvironmentStatusChanged):
            return
        if data.environment_id in self._sessions.environment_ids() | self._connections.environment_ids():
            await self._environments.apply(data)
            environment = await self._environments.find(data.environment_id)
            if environment is not None:
                self._environment_changed(environment)

    async def user_event(self, data: EventData) -> None:
        """The same for users: who is deactivated or deleted has nothing open, whatever it was opened with.

        Revocations name what is alive then. A connection may be older than the sign-in or the key that opened it.
        """
        if isinstance(data, UserState) and data.user_id in self._sessions.user_ids() | self._connections.user_ids():
            await self._users.apply(data)
            self._users_changed(await self._users.find_many([data.user_id]))

    async def run(self) -> None:
        """Until cancelled. A step that fails is logged and comes again with the next round."""
        while True:
            await self.round()
            await asyncio.sleep(self._times.every_seconds)

    async def round(self) -> None:
        """Everything once."""
        self._sessions.end_detached(self._times.detached_seconds)
        self._sessions.forget_bursts()
        self._connections.close_stalled(self._times.stalled_seconds)
        await _try("heartbeat", self._heartbeat)
        await _try("slots", self._slots.refresh)
        await _try("leftovers", self._sessions.write_leftovers)
        await _try("environments", self._check_environments)
        await _try("users", self._check_users)
        await _try("lost sessions", self._takeovers.care_for_the_lost)

    async def _heartbeat(self) -> None:
        await self._store.heartbeat(self._replica_id)

    async def _check_environments(self) -> None:
        ids = self._sessions.environment_ids() | self._connections.environment_ids()
        if ids:
            for environment in (await self._environments.find_many(ids)).values():
                self._environment_changed(environment)

    async def _check_users(self) -> None:
        ids = self._sessions.user_ids() | self._connections.user_ids()
        if ids:
            self._users_changed(await self._users.find_many(ids))

    def _environment_changed(self, environment: Environment) -> None:
        self._sessions.environment_changed(environment)
        if environment.is_deleted:
            closing = CLOSINGS[CloseReason.ENVIRONMENT_DELETED]
            self._connections.close_environment(environment.id, closing)
        elif environment.is_going_down:
            self._connections.close_running(environment.id, CLOSINGS[CloseReason.ENVIRONMENT_STOPPED])

    def _users_changed(self, users: Mapping[str, User]) -> None:
        for user in users.values():
            if not user.may_connect:
                self._connections.close_user(user.id)
                self._sessions.end_user(user.id)


async def _try(what: str, step: Callable[[], Awaitable[None]]) -> None:
    try:
        await step()
    except Exception as error:
        log.warning("upkeep failed, will be tried again", step=what, error=repr(error))
