"""Puts the orchestrator together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI

from libs.common.clock import utc_now
from libs.common.http.app import create_service_app
from libs.common.http.replays import replay_router
from libs.common.platform import Platform
from libs.common.security.keys import KeySource
from libs.common.security.sealing import Sealer
from libs.runtime.factory import create_workspace_runtime
from libs.runtime.port import WorkspaceRuntime
from services.orchestrator import api
from services.orchestrator.domain.model import Limits
from services.orchestrator.events import NatsUsage, StreamHistory, subscriptions
from services.orchestrator.replay import replay_target
from services.orchestrator.repository import COLLECTION, SERVICE, MongoEnvironments
from services.orchestrator.service.dispatch import Dispatcher, Pace
from services.orchestrator.service.orphans import OrphanCollector
from services.orchestrator.service.readiness import RuntimeReadiness
from services.orchestrator.service.reconcile import Reconciler, Work
from services.orchestrator.service.usage import UsageSampler
from services.orchestrator.service.wishes import Wishes
from services.orchestrator.settings import OrchestratorSettings


def create_app(
    settings: OrchestratorSettings | None = None,
    *,
    keys: KeySource | None = None,
    runtime: WorkspaceRuntime | None = None,
) -> FastAPI:
    """The service; `keys` and `runtime` replace auth's JWKS and the configured driver."""
    settings = settings or OrchestratorSettings()
    runtime = runtime or create_workspace_runtime(
        settings.runtime, local_dir=settings.local_runtime_dir, isolation=settings.local_runtime_isolation
    )
    readiness = RuntimeReadiness(runtime)
    platform = Platform(settings, SERVICE, keys=keys, extra_probes={"runtime": readiness.probe})
    orchestrator = Orchestrator(settings, platform, runtime)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            async with platform.starting(orchestrator.store.create_indexes, orchestrator.start):
                yield
        finally:
            await orchestrator.stop()
            await runtime.close()

    app = create_service_app(platform, [api.router, replay_router(SERVICE, replay_target)], lifespan)
    app.state.readiness = readiness
    return app


class Orchestrator:
    """The parts that work in the background, wired to each other."""

    def __init__(self, settings: OrchestratorSettings, platform: Platform, runtime: WorkspaceRuntime) -> None:
        collection = platform.database[COLLECTION]
        # A wish can come back for as long as the stream holds it; its tombstone lasts longer.
        tombstone_life = timedelta(days=settings.stream_max_age_days + 1)
        self.store = MongoEnvironments(collection, platform.outbox.attach(collection), tombstone_life=tombstone_life)
        came_up = asyncio.Event()
        sealer = Sealer(settings.secret_key.get_secret_value(), "environment-variables")
        reconciler = Reconciler(self.store, runtime, sealer.open, utc_now, _work(settings), on_running=came_up.set)
        pace = Pace(settings.reconcile_concurrency, settings.scan_interval_seconds, settings.shutdown_grace_seconds)
        self.dispatcher = Dispatcher(reconciler, self.store, runtime, utc_now, pace)
        self.usage = UsageSampler(
            self.store,
            runtime,
            NatsUsage(platform.bus),
            self.dispatcher,
            utc_now,
            interval_s=settings.metrics_interval_seconds,
            wake=came_up,
        )
        self.orphans = OrphanCollector(
            self.store,
            runtime,
            StreamHistory(platform.bus),
            self.dispatcher,
            utc_now,
            interval_s=settings.orphan_scan_interval_seconds,
            grace_s=settings.orphan_grace_seconds,
        )
        for subscription in subscriptions(Wishes(self.store, self.dispatcher.wished, utc_now)):
            platform.bus.subscribe(subscription)

    async def start(self) -> None:
        """Begin to work; the connections are there."""
        await self.dispatcher.start()
        self.usage.start()
        self.orphans.start()

    async def stop(self) -> None:
        """Stop taking work; workspaces run on."""
        await self.orphans.stop()
        await self.usage.stop()
        await self.dispatcher.stop()


def _work(settings: OrchestratorSettings) -> Work:
    limits = Limits(
        provision_s=settings.provision_deadline_seconds,
        stop_s=settings.stop_deadline_seconds,
        delete_s=settings.delete_deadline_seconds,
        resync_s=settings.resync_interval_seconds,
        losses=settings.crash_loop_losses,
        loss_window_s=settings.crash_loop_window_seconds,
    )
    return Work(
        runtime_name=settings.runtime,
        limits=limits,
        lease_s=settings.lease_seconds,
        stop_grace_s=settings.stop_grace_seconds,
        serving_since=utc_now(),
    )
