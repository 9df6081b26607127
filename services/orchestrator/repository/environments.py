"""Environments in MongoDB: collection `workspaces`, one document each, every change a single conditional write."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.errors import DuplicateKeyError, OperationFailure

from libs.common.context import Cause
from libs.common.contracts.environments import DesiredState
from libs.common.contracts.events import EnvironmentWish, Event, RuntimeRunning, WorkspaceTemplate
from libs.common.messaging.outbox import PENDING, Outbox, pending
from libs.common.mongo import Collection, Document, aggregate
from services.orchestrator.domain.model import SAID, Change, Environment, Progress, Reported, Said, WishCause

SERVICE = "orchestrator"
COLLECTION = "workspaces"

# `$lte` compares dates with dates only, so "free since ever" is a date and "never due" is null.
_EPOCH = datetime.fromtimestamp(0, UTC)
_NO_LEASE = {"holder": None, "until": _EPOCH}
_DELETED = Said.DELETED.value
_COUNTED = [said for said in Said if said is not Said.DELETED]
# A message to the database has a limit; this is far below.
_IDS_AT_ONCE = 1_000
_LIVING = {"next_reconcile_at": {"$ne": None}}


class MongoEnvironments:
    """`EnvironmentStore`. A tombstone goes after `tombstone_life`, longer than the stream can bring old wishes back.

    Writes are `update_one`, followed by a read where the document is wanted: under the lease nobody comes between. The
    embedded database looks through the whole collection for a `findAndModify`, even by `_id`.
    """

    def __init__(self, collection: Collection, outbox: Outbox, *, tombstone_life: timedelta) -> None:
        self._collection = collection
        self._outbox = outbox
        self._tombstone_life = tombstone_life

    async def create_indexes(self) -> None:
        """What the scans read by, and the end of tombstones."""
        await self._collection.create_index([("next_reconcile_at", 1)], name="due")
        await self._collection.create_index([("sampled_at", 1)], name="samples")
        await self._collection.create_index([("cluster", 1), ("next_reconcile_at", 1)], name="cluster")
        await self._collection.create_index([("expires_at", 1)], name="tombstones", expireAfterSeconds=0)
        with suppress(OperationFailure):
            # Of an older version, or gone already.
            await self._collection.drop_index("usage")

    async def accept(self, wish: EnvironmentWish, cause: WishCause | None, now: datetime) -> bool:
        """See EnvironmentStore."""
        outranked = _outranked_by(wish)
        update = _wish_update(wish, cause, now)
        try:
            await self._collection.update_one(outranked[0], update, upsert=True)
        except DuplicateKeyError:
            # There is a document that the wish does not outrank so, or another replica inserted one just now.
            for query in outranked:
                if (await self._collection.update_one(query, update)).matched_count:
                    return True
            return False
        return True

    async def acquire(
        self, environment_id: str, holder: str, now: datetime, until: datetime, *, only_if_due: bool
    ) -> Environment | None:
        """See EnvironmentStore."""
        query: Document = {"_id": environment_id, "lease.until": {"$lte": now}}
        if only_if_due:
            query["next_reconcile_at"] = {"$lte": now}
        lease = {"holder": holder, "until": until}
        result = await self._collection.update_one(query, {"$set": {"lease": lease}})
        return await self.reload(environment_id, holder) if result.matched_count else None

    async def renew(self, environment_id: str, holder: str, until: datetime) -> tuple[DesiredState, int] | None:
        """See EnvironmentStore."""
        query = {"_id": environment_id, "lease.holder": holder}
        await self._collection.update_one(query, {"$set": {"lease.until": until}})
        document = await self._collection.find_one(query, {"desired": 1, "generation": 1})
        return None if document is None else (DesiredState(document["desired"]), document["generation"])

    async def reload(self, environment_id: str, holder: str) -> Environment | None:
        """See EnvironmentStore."""
        document = await self._collection.find_one({"_id": environment_id, "lease.holder": holder})
        return None if document is None else _known(document)

    async def save(self, holder: str, change: Change, now: datetime, runtime: str) -> Environment | None:
        """See EnvironmentStore."""
        environment = change.environment
        query = {
            "_id": environment.id,
            "lease.holder": holder,
            "generation": environment.generation,
            "desired": environment.desired.value,
        }
        result = await self._collection.update_one(query, self._change_update(change, now, runtime))
        if not result.matched_count:
            return None
        if change.report is not None:
            self._outbox.poke(environment.id)
        return environment if change.done else await self.reload(environment.id, holder)

    async def release(self, environment_id: str, holder: str) -> None:
        """See EnvironmentStore."""
        query = {"_id": environment_id, "lease.holder": holder}
        await self._collection.update_one(query, {"$set": {"lease": _NO_LEASE}})

    async def due(self, now: datetime, limit: int) -> Sequence[str]:
        """See EnvironmentStore."""
        query = {"next_reconcile_at": {"$lte": now}, "lease.until": {"$lte": now}}
        cursor = self._collection.find(query, {"_id": 1}).sort("next_reconcile_at", 1).limit(limit)
        return [document["_id"] for document in await cursor.to_list(limit)]

    async def living(self, cluster_id: str | None = None) -> Sequence[str]:
        """See EnvironmentStore."""
        query = _LIVING if cluster_id is None else {"cluster": cluster_id, **_LIVING}
        return [document["_id"] async for document in self._collection.find(query, {"_id": 1})]

    async def count(self, cluster_id: str) -> int:
        """See EnvironmentStore."""
        return await self._collection.count_documents({"cluster": cluster_id, "observed.said": {"$ne": _DELETED}})

    async def count_by_report(self) -> dict[Said, int]:
        """All but the deleted, by the last report, of which each has a number. Raises what the database raises."""
        groups = await aggregate(
            self._collection,
            # By name, so that the planner finds the index `usage` and needs no document.
            [
                {"$match": {"observed.said": {"$in": [said.value for said in _COUNTED]}}},
                {"$group": {"_id": "$observed.said", "count": {"$sum": 1}}},
            ],
        )
        found = {Said(group["_id"]): group["count"] for group in groups}
        return {said: found.get(said, 0) for said in _COUNTED}

    async def count_failed(self) -> dict[str | None, float]:
        """Those that have failed, by reason. Raises what the database raises."""
        groups = await aggregate(
            self._collection,
            [
                {"$match": {"observed.said": Said.FAILED.value}},
                {"$group": {"_id": "$observed.reason", "count": {"$sum": 1}}},
            ],
        )
        return {group["_id"]: group["count"] for group in groups}

    async def wake(self, cluster_id: str | None, now: datetime) -> int:
        """See EnvironmentStore."""
        query = {"cluster": cluster_id, **_LIVING}
        waiting = {**query, "progress.retry_at": {"$gt": now}}
        await self._collection.update_many(waiting, {"$set": {"progress.retry_at": now}})
        return (await self._collection.update_many(query, {"$set": {"next_reconcile_at": now}})).matched_count

    async def buried(self, environment_ids: Sequence[str]) -> dict[str, bool]:
        """See EnvironmentStore."""
        projection = {"desired": 1, "observed.said": 1}
        found = {}
        for start in range(0, len(environment_ids), _IDS_AT_ONCE):
            ids = list(environment_ids[start : start + _IDS_AT_ONCE])
            async for document in self._collection.find({"_id": {"$in": ids}}, projection):
                is_deleted = document["desired"] == DesiredState.DELETED.value
                found[document["_id"]] = is_deleted and document["observed"]["said"] == _DELETED
        return found

    async def unsampled(self, before: datetime, limit: int) -> Sequence[Environment]:
        """See EnvironmentStore."""
        cursor = self._collection.find({"sampled_at": {"$lte": before}}).sort("sampled_at", 1).limit(limit)
        found = [_known(document) for document in await cursor.to_list(limit)]
        away = [environment.id for environment in found if not _is_sampled(environment)]
        if away:
            # Older versions left the date in place when a workspace ended. One that has come up meanwhile keeps it.
            for not_running in ({"observed.said": {"$ne": "running"}}, {"desired": {"$ne": "running"}}):
                query = {"_id": {"$in": away}, **not_running}
                await self._collection.update_many(query, {"$set": {"sampled_at": None}})
        return [environment for environment in found if _is_sampled(environment)]

    async def claim_sample(self, environment_id: str, before: datetime, now: datetime) -> bool:
        """See EnvironmentStore."""
        query = {"_id": environment_id, "sampled_at": {"$lte": before}}
        result = await self._collection.update_one(query, {"$set": {"sampled_at": now}})
        return result.modified_count == 1

    async def recall(self, environment_id: str, reported: Reported, cluster: str | None) -> None:
        """Take back a report that was published, for a replay: it is the last one said. `cluster` None: as it was."""
        values: Document = {"observed": _reported_document(reported)}
        if cluster is not None:
            values["cluster"] = cluster
        if reported.said is Said.DELETED:
            values["spec.variables_sealed"] = None
        await self._collection.update_one({"_id": environment_id}, {"$set": values})

    def _change_update(self, change: Change, now: datetime, runtime: str) -> Document:
        environment = change.environment
        values: Document = {
            "observed": _reported_document(environment.reported),
            "progress": _progress_document(environment.progress),
            "losses": list(environment.losses),
            "cluster": environment.cluster,
            "delayed_by": environment.delayed_by,
            "next_reconcile_at": change.look_again_at,
        }
        if change.done:
            values["lease"] = _NO_LEASE
        update: Document = {"$set": values}
        if environment.is_buried:
            values["spec.variables_sealed"] = None
            values["expires_at"] = now + self._tombstone_life
        if change.report is not None:
            update["$push"] = {PENDING: {"$each": pending([_event(change, runtime)])}}
            if change.report.kind in SAID:
                # A workspace that has just come up is sampled at once, one that does not run never.
                values["sampled_at"] = _EPOCH if change.report.kind is RuntimeRunning else None
        return update


def _is_sampled(environment: Environment) -> bool:
    return environment.reported.said is Said.RUNNING and environment.desired is DesiredState.RUNNING


def _outranked_by(wish: EnvironmentWish) -> list[Document]:
    """What the wish may replace: any of these. Not one query with `$or`, for which the embedded database looks through
    the whole collection, even by `_id`."""
    older = {"version": {"$lt": wish.version}}
    not_deleted = {"desired": {"$ne": DesiredState.DELETED.value}}
    if wish.desired is DesiredState.DELETED:
        return [{"_id": wish.environment_id, **not_deleted}, {"_id": wish.environment_id, **older}]
    return [{"_id": wish.environment_id, **older, **not_deleted}]


def _wish_update(wish: EnvironmentWish, cause: WishCause | None, now: datetime) -> Document:
    wanted: Document = {
        "user_id": wish.user_id,
        "name": wish.name,
        "region": wish.region,
        "desired": wish.desired.value,
        "generation": wish.generation,
        "version": wish.version,
        "spec": wish.spec.model_dump(mode="json"),
        "next_reconcile_at": now,
    }
    at_first: Document = {
        "observed": _reported_document(Reported()),
        "progress": None,
        "losses": [],
        "cluster": None,
        "delayed_by": None,
        "lease": _NO_LEASE,
        PENDING: [],
    }
    # Only what runs and shall run has a date here: whoever looks for samples to take finds nothing else.
    if wish.desired is DesiredState.RUNNING:
        at_first["sampled_at"] = None
    else:
        wanted["sampled_at"] = None
    document = _cause_document(cause or WishCause())
    (at_first if cause is None else wanted)["cause"] = document
    return {"$set": wanted, "$setOnInsert": at_first}


def _event(change: Change, runtime: str) -> Event:
    environment, report = change.environment, change.report
    assert report is not None
    data = report.kind(
        environment_id=environment.id,
        user_id=environment.user_id,
        generation=environment.generation,
        runtime=runtime,
        cluster=environment.ref.cluster,
        reason=report.reason,
        message=report.message,
    )
    cause = Cause(environment.cause.correlation_id, environment.cause.causation_id, SERVICE)
    return Event.new(data, subject=environment.id, source=SERVICE, cause=cause)


def _known(document: Document) -> Environment:
    progress: dict[str, Any] | None = document["progress"]
    observed: dict[str, Any] = document["observed"]
    return Environment(
        id=document["_id"],
        user_id=document["user_id"],
        name=document["name"],
        region=document["region"],
        desired=DesiredState(document["desired"]),
        generation=document["generation"],
        version=document["version"],
        spec=WorkspaceTemplate.model_validate(document["spec"]),
        cause=WishCause(**document["cause"]),
        reported=Reported(**{**observed, "said": Said(observed["said"])}),
        progress=None if progress is None else Progress(**progress),
        losses=tuple(document["losses"]),
        cluster=document["cluster"],
        delayed_by=document["delayed_by"],
    )


def _cause_document(cause: WishCause) -> Document:
    return {
        "correlation_id": cause.correlation_id,
        "causation_id": cause.causation_id,
        "trace": cause.trace,
    }


def _reported_document(reported: Reported) -> Document:
    return {
        "said": reported.said.value,
        "generation": reported.generation,
        "reason": reported.reason,
        "message": reported.message,
        "at": reported.at,
    }


def _progress_document(progress: Progress | None) -> Document | None:
    if progress is None:
        return None
    return {
        "generation": progress.generation,
        "attempts": progress.attempts,
        "deadline_at": progress.deadline_at,
        "retry_at": progress.retry_at,
    }
