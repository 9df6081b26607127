"""Clusters in MongoDB: collection `clusters`, a handful of documents, every change a single conditional write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime

from pymongo.errors import DuplicateKeyError

from libs.common.context import current_cause
from libs.common.contracts.clusters import ClusterHealth, ClusterState, ClusterStatus
from libs.common.contracts.events import Event
from libs.common.messaging.outbox import PENDING, Outbox, pending
from libs.common.mongo import Collection, Document
from services.orchestrator.domain.clusters import Cluster, ClusterChange, state_of

CLUSTERS = "clusters"
_SERVICE = "orchestrator"
_EPOCH = datetime.fromtimestamp(0, UTC)
_KNOWN = frozenset(field.name for field in fields(Cluster)) - {"id"}


class MongoClusters:
    """`ClusterStore`. All access is by the cluster's id, or to all of them, so no further index is needed."""

    def __init__(self, collection: Collection, outbox: Outbox) -> None:
        self._collection = collection
        self._outbox = outbox

    async def all(self) -> Sequence[Cluster]:
        """See ClusterStore."""
        cursor = self._collection.find({}, {PENDING: 0}).sort("_id", 1)
        return [_known(document) async for document in cursor]

    async def find(self, cluster_id: str) -> Cluster | None:
        """See ClusterStore."""
        document = await self._collection.find_one({"_id": cluster_id}, {PENDING: 0})
        return None if document is None else _known(document)

    async def save(self, change: ClusterChange, *, is_default: bool) -> bool:
        """See ClusterStore."""
        cluster = change.cluster
        update: Document = {"$set": _document(cluster)}
        if change.event is not None:
            update["$push"] = {PENDING: {"$each": pending([_event(cluster, change.event, is_default=is_default)])}}
        if change.before == 0:
            update["$setOnInsert"] = {"checked_at": _EPOCH}
        try:
            result = await self._collection.update_one(
                {"_id": cluster.id, "version": change.before}, update, upsert=change.before == 0
            )
        except DuplicateKeyError:
            return False
        if change.event is not None:
            self._outbox.poke(cluster.id)
        return bool(result.matched_count or result.upserted_id)

    async def claim_check(self, cluster_id: str, before: datetime, now: datetime) -> bool:
        """See ClusterStore."""
        query = {"_id": cluster_id, "checked_at": {"$lte": before}}
        result = await self._collection.update_one(query, {"$set": {"checked_at": now}})
        return result.modified_count == 1


def _event(cluster: Cluster, kind: type[ClusterState], *, is_default: bool) -> Event:
    data = kind.model_validate(state_of(cluster, is_default=is_default))
    return Event.new(data, subject=cluster.id, source=_SERVICE, cause=current_cause())


def _document(cluster: Cluster) -> Document:
    values = asdict(cluster)
    del values["id"]
    return {**values, "status": cluster.status.value, "health": cluster.health.value}


def _known(document: Document) -> Cluster:
    values = {name: value for name, value in document.items() if name in _KNOWN}
    values["status"], values["health"] = ClusterStatus(values["status"]), ClusterHealth(values["health"])
    return Cluster(id=document["_id"], **values)
