"""API keys in MongoDB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta

from libs.common.contracts.events import Event
from libs.common.contracts.identity import Scope
from libs.common.messaging.outbox import PENDING, OutboxRelay, pending
from libs.common.mongo import Collection, Database, Document
from services.auth.domain.api_keys import MAX_KEYS, StoredKey
from services.auth.repository.writes import announce, fields_of, remove_published

_FIELDS = [field.name for field in fields(StoredKey)]
# A revoked key's document waits for its events to be published.
_REVOKED_KEPT = timedelta(days=30)


class MongoApiKeys:
    """Implements ApiKeys: one document per key, with the events it has yet to publish."""

    def __init__(self, database: Database, relay: OutboxRelay) -> None:
        self._keys: Collection = database["api_keys"]
        self._outbox = relay.attach(self._keys)

    async def prepare(self) -> None:
        """Make the indexes."""
        await self._keys.create_index([("user_id", 1), ("_id", -1)], name="user")
        await self._keys.create_index("forget_at", expireAfterSeconds=0, name="revoked")

    async def insert(self, key: StoredKey, events: Sequence[Event]) -> None:
        """Store a new one."""
        document = {**fields_of(key, _FIELDS), "scopes": [scope.value for scope in key.scopes], "revoked_at": None}
        await self._keys.insert_one({**document, "_id": key.id, PENDING: pending(events)})
        self._outbox.poke(key.id)

    async def of(self, user_id: str) -> list[StoredKey]:
        """All of a user's, the newest first."""
        cursor = self._keys.find({"user_id": user_id, "revoked_at": None}, {PENDING: 0}).sort("_id", -1)
        return [_key(document) for document in await cursor.to_list(2 * MAX_KEYS)]

    async def revoke(self, key: StoredKey, now: datetime, events: Sequence[Event]) -> bool:
        """Make it void, with its events, in one write; False when it was before."""
        result = await self._keys.update_one(
            {"_id": key.id, "revoked_at": None},
            {
                "$set": {"revoked_at": now, "forget_at": now + _REVOKED_KEPT},
                "$push": {PENDING: {"$each": pending(events)}},
            },
        )
        return result.modified_count == 1

    async def seen(self, key_id: str, at: datetime, address: str | None) -> None:
        """It was used, from there; keeps the latest."""
        # Earlier, or never. The embedded database looks through the whole collection for an `$or`, even by `_id`.
        earlier = {"_id": key_id, "last_used_at": {"$not": {"$gte": at}}}
        await self._keys.update_one(earlier, {"$set": {"last_used_at": at, "last_address": address}})

    async def announce(self, key_id: str) -> None:
        """Bring the key's events to the stream now, as far as that takes no more than a second."""
        await announce(self._outbox, key_id)

    async def remove_all(self, user_id: str) -> bool:
        """Forget all of a user's; False while some have events to publish first."""
        return await remove_published(self._keys, user_id)


def _key(document: Document) -> StoredKey:
    known = {name: document[name] for name in _FIELDS if name in document}
    scopes = tuple(Scope(scope) for scope in document["scopes"])
    return StoredKey(**{**known, "id": document["_id"], "scopes": scopes})
