"""The audit trail in MongoDB."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import asdict, fields
from datetime import timedelta

from pymongo.errors import DuplicateKeyError

from libs.common.mongo import Collection, Database, Document, expire
from services.auth.domain.audit import AuditEntry, AuditQuery

_FIELDS = [field.name for field in fields(AuditEntry)]
_BATCH = 500


class MongoAudit:
    """One document per deed; it goes after `retention`. Ids are UUIDv7, so their order is that of the events."""

    def __init__(self, database: Database, *, retention: timedelta) -> None:
        self._entries: Collection = database["audit"]
        self._retention = retention

    async def prepare(self) -> None:
        """Make the indexes."""
        life = int(self._retention.total_seconds())
        await expire(self._entries, "at", life_s=life, name="expiry")
        for name in ("user_id", "actor", "action"):
            await self._entries.create_index([(name, 1), ("_id", -1)], name=name)

    async def keep(self, entry: AuditEntry) -> None:
        """Store it, once."""
        document = asdict(entry)
        try:
            await self._entries.insert_one({"_id": document.pop("id"), **document})
        except DuplicateKeyError:
            return

    async def page(self, query: AuditQuery, before: str | None, limit: int) -> list[AuditEntry]:
        """The newest first, those before the id `before`."""
        conditions = _conditions(query)
        if before is not None:
            conditions["_id"] = {"$lt": before}
        cursor = self._entries.find(conditions).sort("_id", -1).limit(limit)
        return [_entry(document) for document in await cursor.to_list(limit)]

    async def all(self, query: AuditQuery) -> AsyncGenerator[AuditEntry]:
        """The oldest first; memory stays flat."""
        async for document in self._entries.find(_conditions(query)).sort("_id", 1).batch_size(_BATCH):
            yield _entry(document)


def _conditions(query: AuditQuery) -> Document:
    named = {"user_id": query.user_id, "actor": query.actor, "action": query.action}
    conditions: Document = {name: value for name, value in named.items() if value is not None}
    times = {"$gte": query.since, "$lt": query.until}
    at = {operator: value for operator, value in times.items() if value is not None}
    return {**conditions, "at": at} if at else conditions


def _entry(document: Document) -> AuditEntry:
    known = {name: document[name] for name in _FIELDS if name != "id"}
    return AuditEntry(id=document["_id"], **known)
