"""One replica with several clusters, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from libs.common.contracts.events import (
    EnvironmentCreated,
    EnvironmentWish,
)
from libs.runtime.port import ObservedWorkspace, RuntimeUnavailableError, WorkspaceRef
from services.orchestrator.domain.model import Environment, Limits
from services.orchestrator.service.dispatch import Dispatcher, Pace
from services.orchestrator.service.fleet import FleetRuntime
from services.orchestrator.service.reconcile import Reconciler, Work
from services.orchestrator.service.registry import ClusterRegistry, ClusterWatch, DefaultCluster
from tests.fakes.runtime import FakeRuntime
from tests.unit.orchestrator.memory import START, FakeClock, MemoryStore, wish
from tests.unit.orchestrator.memory_clusters import MemoryClusters, a_cluster
from tests.unit.orchestrator.service.conftest import SEALER


class Moody(FakeRuntime):
    """Answers unless it is `away`; hangs when it `hangs`."""

    away = hangs = False

    async def check(self) -> str:
        self.calls["check"] += 1
        await self._mood()
        return "v1.36.1"

    async def inspect(self, ref: WorkspaceRef) -> ObservedWorkspace | None:
        await self._mood()
        return await super().inspect(ref)

    async def watch(self) -> AsyncIterator[ObservedWorkspace]:
        self.calls["watch"] += 1
        await self._mood()
        async for observed in super().watch():
            yield observed

    async def _mood(self) -> None:
        for _ in range(5):  # an answer takes a while, also one that is no good
            await asyncio.sleep(0)
        if self.hangs:
            await asyncio.Event().wait()
        if self.away:
            raise RuntimeUnavailableError("It went fishing.", reason="Fishing")


class Replica:
    """One replica, in memory; `runtimes` are the clusters it can reach, by what their connections say."""

    def __init__(
        self,
        clusters: MemoryClusters,
        store: MemoryStore,
        clock: FakeClock,
        runtimes: dict[str | None, Moody],
        timer: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """By `timer`, counting costs nothing."""
        self.clusters, self.store, self.clock, self.runtimes = clusters, store, clock, runtimes
        self.fleet = FleetRuntime(in_flight=4)
        default = DefaultCluster("home", "local")
        self.registry = ClusterRegistry(clusters, store, self.fleet, self._make, clock, default=default, timer=timer)
        work = Work(Limits(), 15.0, 5.0, serving_since=START, jitter=lambda: 1.0)
        self.reconciler = Reconciler(store, self.fleet, self.registry, SEALER.open, clock=clock, work=work)
        self.dispatcher = Dispatcher(self.reconciler, store, self.fleet, clock, Pace(8, 3600.0, 0.5))
        self.watch = ClusterWatch(self.registry, clusters, self.dispatcher, clock, refresh_s=3600.0, check_s=10.0)

    def _make(self, _: str, sealed: str | None) -> Moody:
        if sealed == "unreadable":
            raise RuntimeUnavailableError("Stored under another SECRET_KEY.")
        return self.runtimes[sealed]

    async def step(self, *wishes: EnvironmentWish) -> None:
        """Take in the wishes, and work on all that is due."""
        for each in wishes:
            await self.store.accept(each, None, self.clock())
        for environment_id in await self.store.due(self.clock(), 100):
            await self.reconciler.reconcile(environment_id, only_if_due=True)

    async def check(self) -> None:
        """Ten seconds later every cluster is checked, and what came of it known."""
        self.clock.forward(10)
        await self.watch.check()
        await self.watch.refresh()

    def environment(self, environment_id: str = "env1") -> Environment:
        return self.store.records[environment_id].environment


async def a_ready_replica(clusters: MemoryClusters, store: MemoryStore, clock: FakeClock) -> Replica:
    """With the clusters default, a and b."""
    clusters.have(a_cluster("a", "eu"), a_cluster("b", "us"))
    replica = Replica(clusters, store, clock, {None: Moody(), "sealed a": Moody(), "sealed b": Moody()})
    await replica.watch.prepare()
    return replica


def a_wish(
    environment_id: str = "env1",
    region: str | None = "eu",
    kind: type[EnvironmentWish] = EnvironmentCreated,
    generation: int = 1,
) -> EnvironmentWish:
    data = wish(kind, environment_id=environment_id, generation=generation)
    return data.model_copy(update={"region": region})
