"""What a service's database says of its own state: one document per migration, and the mark of a restore under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo.errors import DuplicateKeyError

from libs.common.clock import Clock
from libs.common.migrations.errors import LeaseLostError
from libs.common.migrations.plan import Backfill
from libs.common.mongo import Collection, Database

SCHEMA = "devpocket_schema"
RESTORING = "restoring"
"""Id of the document that is there for as long as the database is not completely restored."""


@dataclass(frozen=True, slots=True)
class Record:
    """How far a migration is. `changed` counts documents.

    `position`: id of the last document that this pass has dealt with; `pass_found`: how many it has found.
    `clean_since`: when the first of the passes began that have found nothing.
    """

    id: str
    number: int
    needs: int
    checksum: str
    changed: int
    started_at: datetime
    position: Any = None
    pass_found: int = 0
    clean_since: datetime | None = None
    done_at: datetime | None = None


class Records:
    """Of one database. A migration is worked on by whoever holds its lease, for `lease_s` seconds after each step."""

    def __init__(self, database: Database, clock: Clock, *, holder: str, lease_s: float) -> None:
        self._collection: Collection = database[SCHEMA]
        self._clock = clock
        self._holder = holder
        self._lease = timedelta(seconds=lease_s)

    async def is_restoring(self) -> bool:
        """Whether a restore was begun and not finished."""
        return await self._collection.find_one({"_id": RESTORING}) is not None

    async def all(self) -> list[Record]:
        """By number."""
        documents = await self._collection.find({"number": {"$exists": True}}).to_list(None)
        return sorted(map(_record, documents), key=lambda record: record.number)

    async def take(self, migration: Backfill) -> Record | None:
        """The lease, with how far it is; None when it is done, or another replica works on it."""
        now = self._clock()
        free = {"_id": migration.id, "done_at": None, "lease.until": {"$lt": now}}
        lease = {"holder": self._holder, "until": now + self._lease}
        result = await self._collection.update_one(free, {"$set": {"lease": lease}})
        if not result.matched_count:
            first = {
                "_id": migration.id,
                "number": migration.number,
                "needs": migration.needs,
                "checksum": migration.checksum,
                "changed": 0,
                "started_at": now,
                "position": None,
                "pass_found": 0,
                "clean_since": None,
                "done_at": None,
                "lease": lease,
            }
            try:
                await self._collection.insert_one(first)
            except DuplicateKeyError:
                return None
        document = await self._collection.find_one({"_id": migration.id})
        return _record(document) if document is not None else None

    async def step(self, migration: Backfill, changed: int, **values: Any) -> None:
        """Keep how far it is, and the lease. Raises LeaseLostError."""
        until = self._clock() + self._lease
        await self._update(migration, {"$set": {**values, "lease.until": until}, "$inc": {"changed": changed}})

    async def release(self, migration: Backfill, **values: Any) -> None:
        """Let others have it. Raises LeaseLostError."""
        await self._update(migration, {"$set": {**values, "lease.until": self._clock() - self._lease}})

    async def _update(self, migration: Backfill, update: dict[str, Any]) -> None:
        mine = {"_id": migration.id, "lease.holder": self._holder}
        if not (await self._collection.update_one(mine, update)).matched_count:
            raise LeaseLostError(migration.id)


def _record(document: Mapping[str, Any]) -> Record:
    names = ("number", "needs", "checksum", "changed", "started_at", "position", "pass_found", "clean_since", "done_at")
    return Record(id=document["_id"], **{name: document[name] for name in names})
