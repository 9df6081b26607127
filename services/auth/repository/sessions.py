"""Sign-ins in MongoDB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime

from libs.common.contracts.events import Event
from libs.common.messaging.outbox import PENDING, OutboxRelay, pending
from libs.common.mongo import Collection, Database, Document
from services.auth.domain.sessions import Session
from services.auth.domain.users import User
from services.auth.ports import Rotation
from services.auth.repository.writes import announce, fields_of, remove_published

_SESSION_FIELDS = [field.name for field in fields(Session)]
# Sessions of before devices were named.
_LEFT_OUT = {"device": "Unknown device", "address": None}


class MongoSessions:
    """One document per sign-in, with the events it has yet to publish; it goes some time after it has expired."""

    def __init__(self, database: Database, relay: OutboxRelay) -> None:
        self._sessions: Collection = database["sessions"]
        self._outbox = relay.attach(self._sessions)

    async def prepare(self) -> None:
        """Make the indexes."""
        await self._sessions.create_index("family_hash", unique=True, name="family")
        await self._sessions.create_index([("user_id", 1), ("epoch", 1)], name="user")
        await self._sessions.create_index("expires_at", expireAfterSeconds=0, name="expiry")

    async def insert(self, session: Session) -> None:
        """Store a new one."""
        await self._sessions.insert_one({**fields_of(session, _SESSION_FIELDS), "_id": session.id})

    async def discard(self, session_id: str) -> None:
        """Remove one whose tokens nobody has got."""
        await self._sessions.delete_one({"_id": session_id})

    async def by_family(self, family_hash: str) -> Session | None:
        """The session a refresh token belongs to."""
        document = await self._sessions.find_one({"family_hash": family_hash}, {PENDING: 0})
        return _session(document) if document is not None else None

    async def get(self, session_id: str) -> Session | None:
        """By id."""
        document = await self._sessions.find_one({"_id": session_id}, {PENDING: 0})
        return _session(document) if document is not None else None

    async def live_ids(self, user: User, now: datetime) -> list[str]:
        """Ids of the user's sessions that can still be used."""
        return [document["_id"] async for document in self._sessions.find(_live(user, now), {"_id": 1})]

    async def page(self, user: User, now: datetime, before: str | None, limit: int) -> list[Session]:
        """The user's sessions that can still be used, the newest first, those before the id `before`."""
        conditions = _live(user, now)
        if before is not None:
            conditions["_id"] = {"$lt": before}
        cursor = self._sessions.find(conditions, {PENDING: 0}).sort("_id", -1).limit(limit)
        return [_session(document) for document in await cursor.to_list(limit)]

    async def rotate(self, session: Session, rotation: Rotation) -> bool:
        """Take over `rotation` if the secret still is `session.secret_hash` and the session is alive."""
        result = await self._sessions.update_one(
            {"_id": session.id, "secret_hash": session.secret_hash, "revoked_at": None},
            {
                "$set": {
                    "secret_hash": rotation.secret_hash,
                    "last_used_at": rotation.at,
                    "address": rotation.address,
                    "expires_at": rotation.expires_at,
                }
            },
        )
        return result.modified_count == 1

    async def move(self, session_id: str, epoch: int) -> None:
        """Keep a live session when its user's epoch rises."""
        await self._sessions.update_one(
            {"_id": session_id, "revoked_at": None, "epoch": {"$lt": epoch}}, {"$set": {"epoch": epoch}}
        )

    async def seen(self, session_id: str, at: datetime, address: str | None) -> None:
        """It was used, from there; keeps the latest."""
        await self._sessions.update_one(
            {"_id": session_id, "last_used_at": {"$lt": at}}, {"$set": {"last_used_at": at, "address": address}}
        )

    async def remove_all(self, user_id: str) -> bool:
        """Forget all of a user's; False while some have events to publish first."""
        return await remove_published(self._sessions, user_id)

    async def end(self, session_id: str, now: datetime, events: Sequence[Event]) -> bool:
        """Mark it revoked, with its events, in one write; False when it was before or is gone."""
        result = await self._sessions.update_one(
            {"_id": session_id, "revoked_at": None},
            {"$set": {"revoked_at": now}, "$push": {PENDING: {"$each": pending(events)}}},
        )
        return result.modified_count == 1

    async def announce(self, session_id: str) -> None:
        """Bring the session's events to the stream now, as far as that takes no more than a second."""
        await announce(self._outbox, session_id)


def _session(document: Document) -> Session:
    known = {name: document[name] for name in _SESSION_FIELDS if name in document}
    return Session(**{**_LEFT_OUT, **known, "id": document["_id"]})


def _live(user: User, now: datetime) -> Document:
    return {"user_id": user.id, "epoch": user.session_epoch, "revoked_at": None, "expires_at": {"$gt": now}}
