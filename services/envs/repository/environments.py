"""The `environments` collection. Every write of state is conditional on the version and carries its events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from pymongo.errors import DuplicateKeyError

from libs.common.contracts.clusters import DEFAULT_CLUSTER
from libs.common.contracts.environments import DesiredState, EnvironmentStatus, Resources
from libs.common.contracts.events import Event
from libs.common.messaging.outbox import PENDING, Outbox, OutboxRelay, pending
from libs.common.mongo import Database, Document, aggregate
from services.envs.allowance import Occupant
from services.envs.domain import TRANSITIONAL
from services.envs.entities import Change, Environment, Usage
from services.envs.plans import Place
from services.envs.ports import TakenError

# A terminated environment is kept this long, so that reports which come late find it and its story can be told.
TOMBSTONE_DAYS = 30
_DAY_S = 24 * 60 * 60
# A terminated environment has no slot. Said as a range, because planners match it with the partial indexes.
_LIVE = {"slot": {"$gte": 0}}
_COUNTED = [status for status in EnvironmentStatus if status is not EnvironmentStatus.TERMINATED]
_COUNT_MS = 1_000
_FIELDS = [field.name for field in fields(Environment) if field.name != "id"]
_LEFT_OUT: dict[str, Any] = {
    "slot": None,
    "deleted_at": None,
    "cluster": DEFAULT_CLUSTER,
    "image_pull_policy": None,
    "delay_sequence": 0,
    "delay_reason": None,
    "stop_reason": None,
}
# What a list does not show and need not carry.
_NOT_LISTED = {"variables_sealed": 0, PENDING: 0}
_OF_OCCUPANTS = {"desired": 1, "last_accessed": 1, "created_at": 1}


class EnvironmentRepository:
    """Implements EnvironmentStore."""

    def __init__(self, database: Database, relay: OutboxRelay | None) -> None:
        """`relay` publishes what writes leave behind; None for tools that write nothing."""
        self._collection = database["environments"]
        self._outbox: Outbox | None = relay.attach(self._collection) if relay is not None else None

    async def create_indexes(self) -> None:
        """One for every query, and the two unique ones that make quota and names safe."""
        for name, field in (("quota", "slot"), ("names", "name")):
            await self._collection.create_index(
                [("user_id", 1), (field, 1)], name=name, unique=True, partialFilterExpression=_LIVE
            )
        await self._collection.create_index([("user_id", 1), ("_id", -1)], name="by_user")
        await self._collection.create_index(
            [("status", 1), ("slot", 1)], name="by_status", partialFilterExpression=_LIVE
        )
        await self._collection.create_index([("template", 1)], name="by_template", partialFilterExpression=_LIVE)
        await self._collection.create_index(
            [("deleted_at", 1)], name="tombstones", expireAfterSeconds=TOMBSTONE_DAYS * _DAY_S
        )

    async def places(self, user_id: str) -> list[Place]:
        """See EnvironmentStore."""
        cursor = self._collection.find({"user_id": user_id, **_LIVE}, {"slot": 1, "name": 1})
        return [Place(document["slot"], document["name"]) for document in await cursor.to_list(None)]

    async def occupants(self, user_id: str) -> list[Occupant]:
        """See EnvironmentStore."""
        cursor = self._collection.find({"user_id": user_id, **_LIVE}, _OF_OCCUPANTS)
        return [
            Occupant(
                id=document["_id"],
                desired=DesiredState(document["desired"]),
                used_at=document.get("last_accessed") or document["created_at"],
            )
            for document in await cursor.to_list(None)
        ]

    async def insert(self, environment: Environment, events: Sequence[Event]) -> None:
        """See EnvironmentStore."""
        document = {"_id": environment.id, **_to_document(environment), PENDING: pending(events)}
        try:
            await self._collection.insert_one(document)
        except DuplicateKeyError as error:
            raise TakenError from error
        self._poke(environment.id)

    async def save(self, change: Change, events: Sequence[Event]) -> bool:
        """See EnvironmentStore. Writes only what differs, so that usage and last access are never set back."""
        before, after = _to_document(change.before), _to_document(change.after)
        update: dict[str, Any] = {
            "$set": {key: value for key, value in after.items() if before.get(key) != value or key not in before}
        }
        gone = {key: "" for key in before if key not in after}
        if gone:
            update["$unset"] = gone
        if events:
            update["$push"] = {PENDING: {"$each": pending(events)}}
        condition = {"_id": change.before.id, "version": change.before.version}
        try:
            result = await self._collection.update_one(condition, update)
        except DuplicateKeyError as error:
            raise TakenError from error
        if result.matched_count and events:
            self._poke(change.before.id)
        return result.matched_count == 1

    async def get(self, environment_id: str) -> Environment | None:
        """See EnvironmentStore."""
        document = await self._collection.find_one({"_id": environment_id}, {PENDING: 0})
        return _from_document(document) if document is not None else None

    async def page(
        self, user_id: str, *, status: EnvironmentStatus | None, limit: int, before: str | None
    ) -> list[Environment]:
        """See EnvironmentStore. Ids are UUIDv7, so their order is that of creation."""
        query: Document = {"user_id": user_id, **_LIVE}
        if status is not None:
            query["status"] = status.value
        if before is not None:
            query["_id"] = {"$lt": before}
        cursor = self._collection.find(query, _NOT_LISTED).sort("_id", -1).limit(limit)
        return [_from_document(document) for document in await cursor.to_list(limit)]

    async def set_usage(self, environment_id: str, usage: Usage) -> bool:
        """See EnvironmentStore."""
        # Older, or not there. The embedded database looks through the whole collection for an `$or`, even by `_id`.
        newer = {"usage.sampled_at": {"$not": {"$gte": usage.sampled_at}}}
        result = await self._collection.update_one(
            {"_id": environment_id, **_LIVE, **newer}, {"$set": {"usage": asdict(usage)}}
        )
        return result.matched_count == 1

    async def touch(self, environment_id: str, at: datetime) -> None:
        """See EnvironmentStore."""
        await self._collection.update_one({"_id": environment_id}, {"$max": {"last_accessed": at}})

    async def count_by_template(self, name: str) -> int:
        """See EnvironmentStore."""
        return await self._collection.count_documents({"template": name, **_LIVE})

    async def count_by_status(self) -> dict[EnvironmentStatus, int]:
        """Of all users, the statuses that none has as well. Raises what the database raises."""
        groups = await aggregate(
            self._collection,
            # Statuses by name, so that the planner finds the index and needs no document.
            [
                {"$match": {"status": {"$in": [status.value for status in _COUNTED]}, **_LIVE}},
                {"$group": {"_id": "$status", "count": {"$sum": 1}}},
            ],
        )
        found = {EnvironmentStatus(group["_id"]): group["count"] for group in groups}
        return {status: found.get(status, 0) for status in _COUNTED}

    async def count_overdue(self, before: datetime) -> int:
        """How many have been on their way to another status since then. Raises what the database raises."""
        waiting = {"status": {"$in": [status.value for status in TRANSITIONAL]}, **_LIVE}
        return await self._collection.count_documents({**waiting, "updated_at": {"$lt": before}}, maxTimeMS=_COUNT_MS)

    def _poke(self, environment_id: str) -> None:
        if self._outbox is not None:
            self._outbox.poke(environment_id)


def _to_document(environment: Environment) -> Document:
    document: Document = {name: getattr(environment, name) for name in _FIELDS}
    document["resources"] = environment.resources.model_dump()
    document["status"] = environment.status.value
    document["desired"] = environment.desired.value
    document["usage"] = asdict(environment.usage) if environment.usage is not None else None
    # The partial indexes hold what has a slot, the time-to-live index what has a date.
    # What was not there before there were several clusters is left out while it says nothing, so that documents
    # from before then are the same as new ones, also for those who compare them.
    for name, nothing in _LEFT_OUT.items():
        if document[name] == nothing:
            del document[name]
    return document


def _from_document(document: Document) -> Environment:
    values: dict[str, Any] = {name: document.get(name, _LEFT_OUT.get(name)) for name in _FIELDS}
    # Stored values were checked when they came in.
    values["resources"] = Resources.model_construct(**document["resources"])
    values["status"] = EnvironmentStatus(document["status"])
    values["desired"] = DesiredState(document["desired"])
    values["usage"] = Usage(**document["usage"]) if document.get("usage") else None
    return Environment(id=document["_id"], **values)
