"""Deleted users in the `users` collection: what this service adds to what auth's events said, each field once.

`environments_found` is how many environments the deletion found, `emptied` the same number once it has been told that
they are gone.
"""

from __future__ import annotations

from libs.common.contracts.events import Event
from libs.common.messaging.outbox import PENDING, Outbox, OutboxRelay, pending
from libs.common.mongo import Database

_NOT_THERE = {"$exists": False}


class DepartureRepository:
    """Implements DepartureStore."""

    def __init__(self, database: Database, relay: OutboxRelay | None) -> None:
        """`relay` publishes what writes leave behind; None for tools that tell nothing."""
        self._collection = database["users"]
        self._outbox: Outbox | None = relay.attach(self._collection) if relay is not None else None

    async def begin(self, user_id: str, environments: int) -> None:
        """See DepartureStore."""
        condition = {"_id": user_id, "is_deleted": True, "environments_found": _NOT_THERE}
        await self._collection.update_one(condition, {"$set": {"environments_found": environments}})

    async def untold(self, user_id: str) -> int | None:
        """See DepartureStore."""
        document = await self._collection.find_one({"_id": user_id, "emptied": _NOT_THERE}, {"environments_found": 1})
        return document.get("environments_found") if document is not None else None

    async def tell(self, user_id: str, environments: int, event: Event) -> None:
        """See DepartureStore."""
        result = await self._collection.update_one(
            {"_id": user_id, "is_deleted": True, "emptied": _NOT_THERE},
            {"$set": {"emptied": environments}, "$push": {PENDING: {"$each": pending([event])}}},
        )
        if result.matched_count and self._outbox is not None:
            self._outbox.poke(user_id)

    async def recall(self, user_id: str, environments: int) -> None:
        """It has been told: for a replay, which takes it from the stream."""
        told = {"environments_found": environments, "emptied": environments}
        await self._collection.update_one({"_id": user_id}, {"$set": told})
