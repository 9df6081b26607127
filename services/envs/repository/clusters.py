"""The `clusters` collection: a read model of the orchestrator's clusters, without their credentials."""

from __future__ import annotations

from pymongo.errors import DuplicateKeyError

from libs.common.contracts.clusters import ClusterState, ClusterStatus
from libs.common.mongo import Database


class ClusterRepository:
    """Implements ClusterStore. A handful of documents, so that no further index is needed."""

    def __init__(self, database: Database) -> None:
        self._collection = database["clusters"]

    async def keep(self, state: ClusterState) -> None:
        """See ClusterStore."""
        values = {
            "region": state.region,
            "is_default": state.is_default,
            "status": state.status.value,
            "version": state.version,
        }
        older = {"_id": state.cluster_id, "version": {"$lt": state.version}}
        try:
            await self._collection.update_one(older, {"$set": values}, upsert=True)
        except DuplicateKeyError:
            # Either what is there is as new, or an older event has just made the document.
            await self._collection.update_one(older, {"$set": values})

    async def regions(self) -> set[str]:
        """See ClusterStore."""
        query = {"status": {"$ne": ClusterStatus.REMOVED.value}}
        return {document["region"] async for document in self._collection.find(query, {"region": 1})}
