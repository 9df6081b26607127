"""Wrong passwords for names that nobody has, in MongoDB. The names themselves are not stored."""

from __future__ import annotations

import hashlib
from datetime import datetime

from pymongo import ReturnDocument

from libs.common.mongo import Collection, Database
from services.auth.domain.users import LockoutPolicy


class MongoStrangers:
    """One document per name; it goes some time after the last try."""

    def __init__(self, database: Database) -> None:
        self._collection: Collection = database["strangers"]

    async def prepare(self) -> None:
        """Make the index that forgets them."""
        await self._collection.create_index("expires_at", expireAfterSeconds=0, name="expiry")

    async def locked_until(self, name: str) -> datetime | None:
        """Until when sign-ins by this name are refused; maybe past."""
        document = await self._collection.find_one({"_id": _key(name)}, {"locked_until": 1})
        found: datetime | None = document.get("locked_until") if document is not None else None
        return found

    async def count_failure(self, name: str, now: datetime, policy: LockoutPolicy) -> None:
        """One more, and the lock when it is one too many."""
        counted = await self._collection.find_one_and_update(
            {"_id": _key(name)},
            {"$inc": {"failures": 1}, "$set": {"expires_at": now + 2 * policy.duration}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        if counted is not None and counted["failures"] >= policy.max_failures:
            lock = {"failures": 0, "locked_until": now + policy.duration}
            await self._collection.update_one({"_id": _key(name)}, {"$set": lock})


def _key(name: str) -> str:
    return hashlib.sha256(name.lower().encode()).hexdigest()
