"""Which driver reaches a workspace: the settings say it of the cluster `default`, events of all others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from libs.common.contracts.clusters import DEFAULT_CLUSTER, ClusterHealth, ClusterStatus
from libs.runtime.fleet import Fleet
from libs.runtime.port import ExecRuntime, RuntimeUnavailableError
from services.terminal.ports import Clusters

# News of a cluster may be heeded so much later; so often at most is the read model asked about each.
_FRESH_SECONDS = 1.0

log = structlog.get_logger(__name__)

MakeDriver = Callable[[str, str | None], ExecRuntime]


class ClusterDrivers:
    """Keeps a fleet in step with the read model. `make_driver` takes a cluster's id and its sealed connection."""

    def __init__(self, fleet: Fleet[ExecRuntime], clusters: Clusters, make_driver: MakeDriver) -> None:
        self._fleet = fleet
        self._clusters = clusters
        self._make_driver = make_driver
        self._looked_at: dict[str, float] = {}
        self._unreachable: dict[str, str] = {}
        self._opened = False
        fleet.put(DEFAULT_CLUSTER, None, lambda: make_driver(DEFAULT_CLUSTER, None))

    async def refresh(self, cluster_id: str) -> None:
        """Have the fleet know what there is to know of this cluster.

        Raises RuntimeUnavailableError when it is said not to answer: a client need not wait to find out.
        """
        now = asyncio.get_running_loop().time()
        if now - self._looked_at.get(cluster_id, float("-inf")) > _FRESH_SECONDS:
            await self._look_if_possible(cluster_id)
            self._looked_at = {**self._still_fresh(now), cluster_id: now}
        if cluster_id in self._unreachable:
            raise RuntimeUnavailableError(self._unreachable[cluster_id], reason="ClusterUnreachable")

    async def probe(self) -> None:
        """Whether the driver of `default` could be opened. Raises RuntimeUnavailableError saying what is missing."""
        if not self._opened:
            await self._fleet.driver(DEFAULT_CLUSTER)
            self._opened = True

    async def _look_if_possible(self, cluster_id: str) -> None:
        try:
            await self._look(cluster_id)
        except RuntimeUnavailableError:
            raise
        except Exception as error:
            # Whoever follows a log need not notice that the database is away.
            log.warning("no news of a cluster, going on with what is known", cluster=cluster_id, error=repr(error))
            if cluster_id not in self._fleet:
                raise RuntimeUnavailableError(f"Nothing is known of the cluster {cluster_id} yet.") from error

    async def _look(self, cluster_id: str) -> None:
        cluster = await self._clusters.find(cluster_id)
        self._unreachable.pop(cluster_id, None)
        if cluster is not None and cluster.health is ClusterHealth.UNREACHABLE:
            why = cluster.message or "it gives no answer"
            self._unreachable[cluster_id] = f"The cluster {cluster_id} cannot be reached: {why}"
        if cluster_id == DEFAULT_CLUSTER:
            return
        if cluster is None or cluster.status is ClusterStatus.REMOVED or cluster.connection_sealed is None:
            self._fleet.drop(cluster_id)
            return
        sealed = cluster.connection_sealed
        self._fleet.put(cluster_id, sealed, lambda: self._make_driver(cluster_id, sealed))

    def _still_fresh(self, now: float) -> dict[str, float]:
        return {known: at for known, at in self._looked_at.items() if now - at <= _FRESH_SECONDS}
