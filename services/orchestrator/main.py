"""Puts the orchestrator together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI

from libs.common.clock import utc_now
from libs.common.clusters import ClusterDrivers
from libs.common.http.app import create_service_app
from libs.common.http.replays import replay_router
from libs.common.metrics.runtime import runtime_observer
from libs.common.platform import Platform
from libs.common.security.keys import KeySource
from libs.common.security.sealing import Sealer
from libs.runtime.port import WorkspaceRuntime
from libs.runtime.timed import TimedWorkspaces
from services.orchestrator import api
from services.orchestrator.connecting import Connector
from services.orchestrator.domain.model import Limits
from services.orchestrator.events import NatsUsage, StreamHistory, subscriptions
from services.orchestrator.metrics import TimedReconciler, describe_workspaces
from services.orchestrator.migrations import MIGRATIONS
from services.orchestrator.replay import replay_target
from services.orchestrator.repository import CLUSTERS, COLLECTION, SERVICE, MongoClusters, MongoEnvironments
from services.orchestrator.service.clusters import ClusterAdministration
from services.orchestrator.service.dispatch import Dispatcher, Pace
from services.orchestrator.service.fleet import FleetRuntime
from services.orchestrator.service.orphans import OrphanCollector
from services.orchestrator.service.reconcile import Reconciler, Work
from services.orchestrator.service.registry import ClusterRegistry, ClusterWatch, DefaultCluster
from services.orchestrator.service.usage import UsageSampler
from services.orchestrator.service.wishes import Wishes
from services.orchestrator.settings import OrchestratorSettings


def create_app(
    settings: OrchestratorSettings | None = None,
    *,
    keys: KeySource | None = None,
    runtime: WorkspaceRuntime | None = None,
) -> FastAPI:
    """The service; `keys` replaces auth's JWKS, `runtime` the driver of the cluster `default`."""
    settings = settings or OrchestratorSettings()
    platform = Platform(settings, SERVICE, keys=keys, migrations=MIGRATIONS)
    orchestrator = Orchestrator(settings, platform, runtime)
    platform.health.add("runtime", orchestrator.clusters.probe)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            async with platform.starting(orchestrator.prepare, orchestrator.start):
                yield
        finally:
            await orchestrator.stop()

    app = create_service_app(platform, [api.router, replay_router(SERVICE, replay_target)], lifespan)
    app.state.administration = orchestrator.administration
    app.state.registry = orchestrator.registry
    return app


class Orchestrator:
    """The parts that work in the background, wired to each other. `runtime` replaces the driver of `default`."""

    def __init__(
        self, settings: OrchestratorSettings, platform: Platform, runtime: WorkspaceRuntime | None = None
    ) -> None:
        secret_key = settings.secret_key.get_secret_value()
        drivers = ClusterDrivers(settings, secret_key)
        self._environments = _environments(settings, platform)
        collection = platform.database[CLUSTERS]
        cluster_store = MongoClusters(collection, platform.outbox.attach(collection))
        self._fleet = FleetRuntime(in_flight=settings.cluster_operations)

        observe = runtime_observer(platform.metrics)

        def make_driver(cluster_id: str, sealed: str | None) -> WorkspaceRuntime:
            driver = runtime if runtime is not None and sealed is None else drivers.make(cluster_id, sealed)
            return TimedWorkspaces(driver, observe)

        self.registry = ClusterRegistry(
            cluster_store,
            self._environments,
            self._fleet,
            make_driver,
            utc_now,
            default=DefaultCluster(settings.region_name, settings.runtime),
        )
        self.administration = ClusterAdministration(cluster_store, self._environments, Connector(drivers), utc_now)
        came_up = asyncio.Event()
        reconciler = Reconciler(
            self._environments,
            self._fleet,
            self.registry,
            Sealer(secret_key, "environment-variables").open,
            clock=utc_now,
            work=_work(settings),
            on_running=came_up.set,
        )
        pace = Pace(settings.reconcile_concurrency, settings.scan_interval_seconds, settings.shutdown_grace_seconds)
        timed = TimedReconciler(reconciler, platform.metrics)
        self._dispatcher = Dispatcher(timed, self._environments, self._fleet, utc_now, pace)
        self.clusters = ClusterWatch(
            self.registry,
            cluster_store,
            self._dispatcher,
            utc_now,
            refresh_s=settings.cluster_refresh_seconds,
            check_s=settings.cluster_check_seconds,
        )
        self._usage = UsageSampler(
            self._environments,
            self._fleet,
            NatsUsage(platform.bus),
            self._dispatcher,
            utc_now,
            interval_s=settings.metrics_interval_seconds,
            wake=came_up,
        )
        self._orphans = OrphanCollector(
            self._environments,
            self._fleet,
            StreamHistory(platform.bus),
            self._dispatcher,
            utc_now,
            interval_s=settings.orphan_scan_interval_seconds,
            grace_s=settings.orphan_grace_seconds,
        )
        self._identities = platform.identities
        describe_workspaces(platform.metrics, self._environments, self.registry)
        wishes = Wishes(self._environments, self._dispatcher.wished, utc_now)
        for subscription in subscriptions(wishes, platform.identities):
            platform.bus.subscribe(subscription)

    async def prepare(self) -> None:
        """Indexes, and the clusters."""
        await self._environments.create_indexes()
        await self._identities.prepare()
        await self.clusters.prepare()

    async def start(self) -> None:
        """Begin to work; the connections are there."""
        await self._dispatcher.start()
        self.clusters.start()
        self._usage.start()
        self._orphans.start()

    async def stop(self) -> None:
        """Stop taking work; workspaces run on."""
        await self.clusters.stop()
        await self._orphans.stop()
        await self._usage.stop()
        await self._dispatcher.stop()
        await self._fleet.close()


def _environments(settings: OrchestratorSettings, platform: Platform) -> MongoEnvironments:
    collection = platform.database[COLLECTION]
    # A wish can come back for as long as the stream holds it; its tombstone lasts longer.
    tombstone_life = timedelta(days=settings.stream_max_age_days + 1)
    return MongoEnvironments(collection, platform.outbox.attach(collection), tombstone_life=tombstone_life)


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
        limits=limits,
        lease_s=settings.lease_seconds,
        stop_grace_s=settings.stop_grace_seconds,
        serving_since=utc_now(),
    )
