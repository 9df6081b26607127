"""What this replica knows of the clusters: the fleet follows the store, health is checked, environments are placed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from libs.common.clock import Clock
from libs.common.contracts.clusters import DEFAULT_CLUSTER, ClusterHealth, ClusterUpdated
from libs.common.costly import CostlyNumbers
from libs.common.tasks import end_tasks
from libs.runtime.port import (
    DriverError,
    ObservedWorkspace,
    RuntimeUnavailableError,
    WorkspaceRef,
    WorkspaceRuntime,
)
from services.orchestrator.domain import clusters as domain
from services.orchestrator.domain.clusters import CheckResult, Cluster, ClusterChange
from services.orchestrator.domain.model import Environment
from services.orchestrator.ports import ClusterStore, EnvironmentStore
from services.orchestrator.service.dispatch import Dispatcher
from services.orchestrator.service.fleet import FleetRuntime
from services.orchestrator.service.loops import repeat

# A cluster that has not answered by then is away.
ANSWER_TIMEOUT_S = 5.0

MakeDriver = Callable[[str, str | None], WorkspaceRuntime]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DefaultCluster:
    """What the settings say of the cluster `default`."""

    region: str
    runtime: str


class ClusterRegistry:
    """The clusters, as of the last look at the store."""

    def __init__(
        self,
        store: ClusterStore,
        environments: EnvironmentStore,
        fleet: FleetRuntime,
        make_driver: MakeDriver,
        clock: Clock,
        *,
        default: DefaultCluster,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """`timer` gives seconds: it says what counting environments costs."""
        self._store = store
        self._environments = environments
        self._fleet = fleet
        self._make_driver = make_driver
        self._clock = clock
        self._default = default
        self._known: Sequence[Cluster] = ()
        self._counts = CostlyNumbers(environments.count, timer)
        self._refreshing = asyncio.Lock()
        # In order; each once.
        self._news: dict[str, None] = {}
        # Why there is no driver, where none could be made.
        self._unusable: dict[str, RuntimeUnavailableError] = {}

    @property
    def clusters(self) -> Sequence[Cluster]:
        """All but the removed ones."""
        return [cluster for cluster in self._known if not cluster.is_removed]

    def runtime_of(self, cluster_id: str | None) -> str:
        """`local` or `kubernetes`."""
        found = next((cluster for cluster in self._known if cluster.id == cluster_id), None)
        return self._default.runtime if found is None else found.runtime

    async def declare_default(self) -> None:
        """Have the store know the cluster that the settings name, as they say it is."""
        region, runtime = self._default.region, self._default.runtime
        self._known = await self._store.all()
        for _ in range(3):
            there, now = await self._store.find(DEFAULT_CLUSTER), self._clock()
            if there is None:
                change = domain.registered(Cluster(DEFAULT_CLUSTER, region, runtime, created_at=now, updated_at=now))
            elif (there.region, there.runtime) == (region, runtime):
                return
            else:
                after = replace(there, region=region, runtime=runtime, updated_at=now, version=there.version + 1)
                change = ClusterChange(there.version, after, ClusterUpdated)
            if await self._save(change):
                return

    async def refresh(self) -> None:
        """Look at the store, and have the fleet work with what is there."""
        async with self._refreshing:
            room = self._room()
            self._known = await self._store.all()
            freed: list[str | None] = [cluster.id for cluster in self._known if self._take_over(cluster)]
            if self._room() - room:
                freed.append(None)
            for cluster_id in freed:
                # What was tried here in the meantime waits for longer than need be.
                await self._environments.wake(cluster_id, self._clock())

    def news(self) -> list[str]:
        """Clusters with another driver than before, or with none any more, since this was last asked."""
        news, self._news = self._news, {}
        return list(news)

    def _room(self) -> set[tuple[str, str, int | None]]:
        """Where new environments may come; what is in it that was not before is worth another try."""
        return {(cluster.id, cluster.region, cluster.capacity) for cluster in self._known if cluster.takes_new}

    def _take_over(self, cluster: Cluster) -> bool:
        """Have the fleet work with this cluster; whether calls have an end now that were held up before."""
        if cluster.is_removed:
            is_news = self._fleet.remove(cluster.id)
            if is_news:
                self._news[cluster.id] = None
            return is_news
        try:
            if self._fleet.put(cluster.id, (cluster.runtime, cluster.connection_sealed), self._maker(cluster)):
                self._news[cluster.id] = None
            self._unusable.pop(cluster.id, None)
        except RuntimeUnavailableError as error:
            if cluster.id not in self._unusable:
                log.warning("no driver for a cluster", cluster=cluster.id, reason=error.reason, error=str(error))
            self._unusable[cluster.id] = error
        if cluster.health is not ClusterHealth.UNREACHABLE:
            return self._fleet.resume(cluster.id)
        self._fleet.hold(cluster.id, f"The cluster {cluster.id} cannot be reached: {cluster.message}")
        return False

    async def locate(self, environment: Environment) -> str | None:
        """Look for it everywhere: a record that was lost must not cost a workspace, nor leave one behind.

        A first wish does not wait for a cluster that is away. Raises RuntimeUnavailableError.
        """
        ids = [cluster.id for cluster in self.clusters]
        refs = [WorkspaceRef(environment.id, environment.user_id, cluster_id) for cluster_id in ids]
        found = await asyncio.gather(*(self._inspect(ref) for ref in refs), return_exceptions=True)
        for cluster_id, observed in zip(ids, found, strict=True):
            if isinstance(observed, ObservedWorkspace):
                return cluster_id
        errors = [error for error in found if isinstance(error, BaseException)]
        if errors and environment.generation > 1:
            raise errors[0]
        return None

    async def place(self, environment: Environment) -> str:
        """The cluster for an environment that has none. Raises WorkspaceRejectedError or RuntimeUnavailableError."""
        clusters = self.clusters
        contenders = domain.contenders(clusters, environment.region)
        load = {}
        if len(contenders) > 1 or any(cluster.capacity is not None for cluster in contenders):
            counts = await asyncio.gather(*(self._counts.get(cluster.id) for cluster in contenders))
            load = {cluster.id: count for cluster, count in zip(contenders, counts, strict=True)}
        chosen = domain.place(clusters, environment.region, load).id
        self._counts.add(chosen, 1)
        return chosen

    async def check(self, cluster: Cluster) -> CheckResult:
        """Ask the cluster and keep what comes of it; what it answered."""
        result = await self.ask(cluster.id)
        change = domain.checked(cluster, result, self._clock())
        if change.cluster == cluster or not await self._save(change):
            return result
        if change.event is not None:
            is_well = change.cluster.health is ClusterHealth.HEALTHY
            tell = log.info if is_well else log.warning
            tell("cluster health", cluster=cluster.id, health=change.cluster.health.value, message=result.message)
            if is_well:
                self._fleet.resume(cluster.id)
                await self._environments.wake(cluster.id, self._clock())
        return result

    async def ask(self, cluster_id: str) -> CheckResult:
        """Whether it answers right now; nothing is kept."""
        try:
            if cluster_id in self._unusable:
                raise self._unusable[cluster_id]
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return CheckResult(await self._fleet.check(cluster_id))
        except TimeoutError:
            return CheckResult(None, "ClusterUnreachable", f"It gave no answer within {ANSWER_TIMEOUT_S:.0f} s.")
        except DriverError as error:
            return CheckResult(None, error.reason, str(error))
        except Exception as error:
            log.exception("unexpected error while checking a cluster", cluster=cluster_id)
            return CheckResult(None, "ClusterUnreachable", f"It could not be asked: {error}")

    async def _inspect(self, ref: WorkspaceRef) -> ObservedWorkspace | None:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await self._fleet.inspect(ref)

    def _maker(self, cluster: Cluster) -> Callable[[], WorkspaceRuntime]:
        return lambda: self._make_driver(cluster.id, cluster.connection_sealed)

    async def _save(self, change: ClusterChange) -> bool:
        others = [cluster for cluster in self._known if cluster.id != change.cluster.id]
        default = domain.default_of([*others, change.cluster])
        return await self._store.save(change, is_default=default is not None and default.id == change.cluster.id)


class ClusterWatch:
    """Looks at the store every `refresh_s` seconds; each cluster is checked every `check_s` seconds, by one replica."""

    def __init__(
        self,
        registry: ClusterRegistry,
        store: ClusterStore,
        dispatcher: Dispatcher,
        clock: Clock,
        *,
        refresh_s: float,
        check_s: float,
    ) -> None:
        self._registry = registry
        self._store = store
        self._dispatcher = dispatcher
        self._clock = clock
        self._refresh_s = refresh_s
        self._check_s = check_s
        self._prepared = False
        self._loops: list[asyncio.Task[None]] = []

    async def prepare(self) -> None:
        """Know the clusters, and whether they answer, before any work begins."""
        await self._registry.declare_default()
        await self._registry.refresh()
        await asyncio.gather(*(self._registry.check(cluster) for cluster in self._registry.clusters))
        await self._registry.refresh()
        # The dispatcher has not begun, and will watch them all.
        self._registry.news()
        self._prepared = True

    def start(self) -> None:
        """Go on until `stop`."""
        self._loops = [
            asyncio.create_task(repeat("clusters", self._refresh_s, self.refresh)),
            asyncio.create_task(repeat("cluster health", self._refresh_s, self.check)),
        ]

    async def stop(self) -> None:
        """End at once."""
        await end_tasks(self._loops)

    async def refresh(self) -> None:
        """Take over what others have changed."""
        await self._registry.refresh()
        for cluster_id in self._registry.news():
            await self._dispatcher.follow(cluster_id)

    async def check(self) -> None:
        """Check every cluster that nobody has checked for a while."""
        now = self._clock()
        before = now - timedelta(seconds=self._check_s)
        due = [c for c in self._registry.clusters if await self._store.claim_check(c.id, before, now)]
        await asyncio.gather(*(self._registry.check(cluster) for cluster in due))

    async def probe(self) -> None:
        """Raises RuntimeUnavailableError when no cluster works. Before `prepare` nothing is known, and nothing said."""
        if not self._prepared:
            return
        clusters = self._registry.clusters
        if any(cluster.health is ClusterHealth.HEALTHY for cluster in clusters):
            return
        why = next((cluster for cluster in clusters if cluster.message), None)
        text = "The clusters are not known yet." if why is None else why.message or ""
        raise RuntimeUnavailableError(text, reason=(why.reason if why else None) or "ClusterUnreachable")
