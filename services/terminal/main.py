"""Puts the terminal service together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from fastapi import FastAPI

from libs.common import clusters as registered
from libs.common.clock import utc_now
from libs.common.http.app import create_service_app
from libs.common.http.replays import replay_router
from libs.common.ids import new_id
from libs.common.metrics.runtime import runtime_observer
from libs.common.platform import Platform
from libs.common.security.keys import KeySource
from libs.runtime.fleet import Fleet, FleetExec
from libs.runtime.holder.held import HoldTerms
from libs.runtime.port import ExecRuntime
from libs.runtime.timed import Observe, TimedExec
from services.terminal import api
from services.terminal.api.file_addresses import STREAMED
from services.terminal.api.preview import PreviewMiddleware
from services.terminal.api.state import TerminalState
from services.terminal.bridge.carrier import NatsCarrier
from services.terminal.bridge.guest import Bridges
from services.terminal.bridge.host import Host
from services.terminal.bridge.link import LinkLimits
from services.terminal.cache import RedisAllowance, RedisGrants, RedisSlots, RedisTickets
from services.terminal.control import NatsControl, answer_others
from services.terminal.domain import CLOSINGS, CloseReason
from services.terminal.events import subscribe_here, subscriptions
from services.terminal.logs.feed import LogFeeds
from services.terminal.metrics import ExecCounter, describe_sessions
from services.terminal.migrations import MIGRATIONS
from services.terminal.preview.address import Venue
from services.terminal.replay import replay_target
from services.terminal.repository import MongoClusters, MongoEnvironments, MongoSessions, MongoUsers
from services.terminal.service.access import Access
from services.terminal.service.accounts import Accounts
from services.terminal.service.clusters import ClusterDrivers, MakeDriver
from services.terminal.service.commands import Commands
from services.terminal.service.connections import Connections
from services.terminal.service.files import Files
from services.terminal.service.previews import Previews
from services.terminal.service.rate import MessageRates
from services.terminal.service.sessions import Sessions
from services.terminal.service.shells import Shells
from services.terminal.service.starting import ShellStarter
from services.terminal.service.takeovers import Takeovers
from services.terminal.service.tickets import TicketDesk
from services.terminal.service.upkeep import Upkeep, UpkeepTimes
from services.terminal.service.work import Workbench
from services.terminal.sessions.session import SessionLimits
from services.terminal.settings import TerminalSettings

_SERVICE = "terminal"

log = structlog.get_logger(__name__)


def create_app(
    settings: TerminalSettings | None = None, *, keys: KeySource | None = None, runtime: ExecRuntime | None = None
) -> FastAPI:
    """The service; `keys` replaces auth's JWKS, `runtime` the driver of the cluster `default`."""
    settings = settings or TerminalSettings()
    platform = Platform(settings, _SERVICE, keys=keys, migrations=MIGRATIONS)
    terminal = Terminal(settings, platform, runtime)
    platform.health.add("runtime", terminal.clusters.probe)
    # The server would close WebSockets by itself, with 1012 and before the application hears of its end.
    platform.departure.say_by(terminal.stop)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            async with platform.starting(terminal.prepare, terminal.start):
                yield
        finally:
            await terminal.stop()
            # Whatever it still holds ends with this process: the kernel hangs its terminals up.
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.terminal_shutdown_seconds):
                    await terminal.runtime.close()

    app = create_service_app(
        platform, [*api.routers, replay_router(_SERVICE, replay_target)], lifespan, streamed=STREAMED
    )
    app.add_middleware(PreviewMiddleware)
    app.state.terminal = terminal.state
    return app


class Terminal:
    """The use cases and what works in the background, wired to each other. `default`: the driver of that cluster."""

    def __init__(self, settings: TerminalSettings, platform: Platform, default: ExecRuntime | None = None) -> None:
        self._settings = settings
        self._platform = platform
        self._replica_id = new_id()
        self._upkeep_task: asyncio.Task[None] | None = None
        self._stopped = False
        # An event can come back for as long as the stream holds it.
        self._environments = MongoEnvironments(
            platform.database, utc_now, tombstone_days=settings.stream_max_age_days + 1
        )
        self._users = MongoUsers(platform.database, tombstone_days=settings.stream_max_age_days + 1)
        clusters = MongoClusters(platform.database)
        fleet: Fleet[ExecRuntime] = Fleet()
        observe = runtime_observer(platform.metrics)
        self.clusters = ClusterDrivers(fleet, clusters, _driver_maker(settings, default, observe))
        self.runtime = FleetExec(fleet, self.clusters.refresh)
        execs = ExecCounter(platform.metrics)
        self._logs = LogFeeds(self.runtime)
        self._store = MongoSessions(platform.database, platform.outbox.attach, utc_now)
        is_revoked = platform.revocations.is_revoked
        self._connections = Connections(is_revoked)
        terms = _terms(settings) if settings.terminal_hold_shells else None
        starter = ShellStarter(execs.counting(self.runtime, "shell"), terms)
        self._sessions = Sessions(
            starter,
            self._store,
            self._environments,
            limits=_limits(settings),
            replica_id=self._replica_id,
            per_user=settings.terminal_sessions_per_user,
            clock=utc_now,
            is_revoked=is_revoked,
        )
        describe_sessions(platform.metrics, self._sessions)
        takeovers = Takeovers(self._sessions, self._store, self._environments, starter, replica_id=self._replica_id)
        access = Access(self._environments, grace_seconds=settings.read_model_grace_seconds)
        slots = RedisSlots(platform.redis, limit=settings.terminal_connections_per_user)
        self._upkeep = Upkeep(
            self._sessions,
            self._connections,
            self._store,
            self._environments,
            slots,
            users=self._users,
            takeovers=takeovers,
            replica_id=self._replica_id,
            times=_times(settings),
        )
        tickets = TicketDesk(
            access,
            RedisTickets(platform.redis),
            life_seconds=settings.ticket_life_seconds,
            is_revoked=is_revoked,
        )
        control = NatsControl(platform.bus, answer_seconds=settings.terminal_owner_seconds)
        carrier = NatsCarrier(platform.bus)
        link_limits = LinkLimits(silent_seconds=settings.terminal_bridge_silent_seconds)
        self._host = Host(carrier, self._sessions, self._connections, link_limits)
        self.state = TerminalState(
            settings=settings,
            tokens=platform.tokens,
            access=access,
            tickets=tickets,
            sessions=self._sessions,
            bridges=Bridges(carrier, control, limits=link_limits),
            shells=Shells(self._sessions, self._store, control, takeovers, replica_id=self._replica_id),
            takeovers=takeovers,
            connections=self._connections,
            slots=slots,
            rates=MessageRates(RedisAllowance(platform.redis), per_second=settings.terminal_messages_per_second),
            runtime=self.runtime,
            logs=self._logs,
            files=Files(
                execs.counting(self.runtime, "file"),
                Workbench(self._connections, limit=settings.terminal_transfers_per_user, what="transfers"),
            ),
            commands=Commands(
                execs.counting(self.runtime, "command"),
                Workbench(self._connections, limit=settings.terminal_commands_per_user, what="commands"),
                output_bytes=settings.terminal_command_output_bytes,
            ),
            previews=Previews(
                access,
                tickets,
                RedisGrants(platform.redis),
                self._users,
                workbench=Workbench(
                    self._connections,
                    limit=settings.preview_requests_per_user,
                    what="requests to applications",
                    ends_with_environment=True,
                ),
                runtime=self.runtime,
                clock=utc_now,
                is_revoked=is_revoked,
                # A sign-in that has ended is remembered for as long as its tokens would have lived.
                idle_seconds=settings.access_token_expire_minutes * 60,
                life_seconds=settings.preview_life_seconds,
            ),
            venue=Venue(settings.preview_origin),
        )
        platform.revocations.on_revoked(self._upkeep.login_revoked)
        accounts = Accounts(self._users, self._store)
        for subscription in subscriptions(self._environments, clusters, accounts):
            platform.bus.subscribe(subscription)

    async def prepare(self) -> None:
        """Make indexes, and be known as alive before the first session is."""
        await self._environments.prepare()
        await self._users.prepare()
        await self._store.prepare()
        await self._store.heartbeat(self._replica_id)

    async def start(self) -> None:
        """Begin to work; the connections are there."""
        self.clusters.hear()
        await subscribe_here(self._platform.bus, self._upkeep)
        await answer_others(self._platform.bus, self._sessions, self._replica_id, self._host.attach)
        self._sessions.begin()
        self._upkeep_task = asyncio.create_task(self._upkeep.run())

    async def stop(self, patience_s: float = 0.0) -> None:
        """Close every connection, end every shell, tell the bus; bounded in time, and safe to repeat.

        Transfers, commands and requests to applications may finish for `patience_s` seconds.
        """
        if self._stopped:
            return
        self._stopped = True
        if self._upkeep_task is not None:
            self._upkeep_task.cancel()
        try:
            async with asyncio.timeout(patience_s + self._settings.terminal_shutdown_seconds):
                await asyncio.gather(
                    self._connections.close_all(CLOSINGS[CloseReason.SHUTDOWN], patience_s), self._sessions.drain()
                )
                await self._logs.close()
                await self._store.retire(self._replica_id)
        except Exception as error:
            # What is left open in the store is closed as lost by another replica, or by the next start.
            log.warning("shutdown is not complete", error=repr(error), sessions=len(self._sessions))


def _driver_maker(settings: TerminalSettings, default: ExecRuntime | None, observe: Observe) -> MakeDriver:
    drivers = registered.ClusterDrivers(settings, settings.secret_key.get_secret_value())

    def make(cluster_id: str, sealed: str | None) -> ExecRuntime:
        driver = default if default is not None and sealed is None else drivers.make(cluster_id, sealed)
        return TimedExec(driver, observe)

    return make


def _limits(settings: TerminalSettings) -> SessionLimits:
    return SessionLimits(
        ring_bytes=settings.terminal_ring_bytes,
        burst_bytes=max(settings.terminal_ring_bytes, settings.terminal_ring_burst_bytes),
        window_bytes=settings.terminal_window_bytes,
        # Two messages of the largest size: one that is being written to the shell, and one that came meanwhile.
        input_bytes=2 * settings.terminal_message_bytes,
        hold_seconds=settings.terminal_hold_seconds,
        detached_bytes_per_second=settings.terminal_detached_bytes_per_second,
    )


def _terms(settings: TerminalSettings) -> HoldTerms:
    """The same bounds inside the workspace as here."""
    limits = _limits(settings)
    return HoldTerms(
        quiet_bytes=limits.ring_bytes,
        burst_bytes=limits.burst_bytes,
        window_bytes=limits.window_bytes,
        hold_seconds=limits.hold_seconds,
        keep_seconds=settings.terminal_detached_seconds,
        bytes_per_second=limits.detached_bytes_per_second,
        quiet_after_seconds=limits.quiet_after_seconds,
    )


def _times(settings: TerminalSettings) -> UpkeepTimes:
    return UpkeepTimes(
        every_seconds=settings.terminal_upkeep_seconds,
        detached_seconds=settings.terminal_detached_seconds,
        stalled_seconds=settings.terminal_stalled_seconds,
    )
