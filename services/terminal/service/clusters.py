"""Which driver reaches a workspace: the settings say it of the cluster `default`, events of all others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from libs.common.contracts.clusters import DEFAULT_CLUSTER, ClusterHealth, ClusterStatus
from libs.runtime.fleet import Fleet
from libs.runtime.port import ExecRuntime, RuntimeUnavailableError
from services.terminal.domain import Cluster
from services.terminal.ports import Clusters

# News of a cluster may be heeded so much later; so often at most is the read model asked about each.
_FRESH_SECONDS = 1.0

log = structlog.get_logger(__name__)

MakeDriver = Callable[[str, str | None], ExecRuntime]


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a cluster is not asked. `reason` and `message` as a DriverError's."""

    reason: str
    message: str


class ClusterDrivers:
    """Keeps a fleet in step with the read model. `make_driver` takes a cluster's id and its sealed connection."""

    def __init__(
        self,
        fleet: Fleet[ExecRuntime],
        clusters: Clusters,
        make_driver: MakeDriver,
        *,
        fresh_seconds: float = _FRESH_SECONDS,
    ) -> None:
        self._fleet = fleet
        self._clusters = clusters
        self._make_driver = make_driver
        self._fresh_seconds = fresh_seconds
        self._looked_at: dict[str, float] = {}
        self._refused: dict[str, _Refusal] = {}
        self._hears = False
        self._opened = False
        fleet.put(DEFAULT_CLUSTER, None, lambda: make_driver(DEFAULT_CLUSTER, None))

    async def refresh(self, cluster_id: str) -> None:
        """Have the fleet know what there is to know of this cluster.

        Raises RuntimeUnavailableError when it is said not to answer, so that no client waits to find out, when it was
        removed, and when its connection cannot be used. What runs in it already goes on in each case.
        """
        now = asyncio.get_running_loop().time()
        if now - self._looked_at.get(cluster_id, float("-inf")) >= self._fresh_seconds:
            await self._look_if_possible(cluster_id)
            self._looked_at = {**self._still_fresh(now), cluster_id: now}
        refusal = self._refused.get(cluster_id)
        if refusal is not None:
            raise RuntimeUnavailableError(refusal.message, reason=refusal.reason)

    def hear(self) -> None:
        """From now on events tell of clusters."""
        self._hears = True

    async def probe(self) -> None:
        """Whether the driver of one cluster could be opened, once. Raises RuntimeUnavailableError.

        Before `hear` it raises nothing: the only cluster that works may be one that no event has told of yet.
        """
        if self._opened:
            return
        try:
            await self._open(DEFAULT_CLUSTER)
        except RuntimeUnavailableError as error:
            if not self._hears:
                log.warning("the default cluster is away", reason=error.reason, error=str(error))
                return
            if not await self._another_opens():
                raise
        self._opened = True

    async def _open(self, cluster_id: str) -> None:
        await self.refresh(cluster_id)
        await self._fleet.driver(cluster_id)

    async def _another_opens(self) -> bool:
        for cluster_id in await self._clusters.active_ids():
            if cluster_id == DEFAULT_CLUSTER:
                continue
            try:
                await self._open(cluster_id)
            except RuntimeUnavailableError as error:
                log.warning("a cluster is away", cluster=cluster_id, reason=error.reason, error=str(error))
            else:
                return True
        return False

    async def _look_if_possible(self, cluster_id: str) -> None:
        try:
            cluster = await self._clusters.find(cluster_id)
        except Exception as error:
            # Whoever follows a log need not notice that the database is away.
            log.warning("no news of a cluster, going on with what is known", cluster=cluster_id, error=repr(error))
            if cluster_id not in self._fleet:
                raise RuntimeUnavailableError(f"Nothing is known of the cluster {cluster_id} yet.") from error
        else:
            self._take_in(cluster_id, cluster)

    def _take_in(self, cluster_id: str, cluster: Cluster | None) -> None:
        refusal = None if cluster is None else _refusal(cluster)
        if refusal is None:
            self._refused.pop(cluster_id, None)
        else:
            self._refused[cluster_id] = refusal
        if cluster_id == DEFAULT_CLUSTER:
            return
        if cluster is None or cluster.connection_sealed is None:
            self._fleet.drop(cluster_id)
            return
        sealed = cluster.connection_sealed
        self._fleet.put(cluster_id, sealed, lambda: self._make_driver(cluster_id, sealed))

    def _still_fresh(self, now: float) -> dict[str, float]:
        return {known: at for known, at in self._looked_at.items() if now - at < self._fresh_seconds}


def _refusal(cluster: Cluster) -> _Refusal | None:
    if cluster.status is ClusterStatus.REMOVED:
        return _Refusal("ClusterRemoved", f"The cluster {cluster.id} was removed.")
    if cluster.health is ClusterHealth.UNREACHABLE:
        why = cluster.message or "it gives no answer"
        return _Refusal("ClusterUnreachable", f"The cluster {cluster.id} cannot be reached: {why}")
    return None
