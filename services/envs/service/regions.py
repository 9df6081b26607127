"""Where environments may be wanted."""

from __future__ import annotations

from libs.common.contracts.clusters import ClusterState
from services.envs.errors import UnknownRegionError
from services.envs.ports import ClusterStore


class RegionService:
    """Keeps and answers from the read model of clusters."""

    def __init__(self, store: ClusterStore) -> None:
        self._store = store

    async def keep(self, state: ClusterState) -> None:
        """Take over what the orchestrator says, unless something newer is known."""
        await self._store.keep(state)

    async def require(self, region: str | None) -> None:
        """Raises UnknownRegionError. Until the orchestrator has told of a cluster, it alone can judge."""
        if region is None:
            return
        regions = await self._store.regions()
        if regions and region not in regions:
            raise UnknownRegionError(region, sorted(regions))
