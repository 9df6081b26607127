"""Users and sessions in MongoDB: queries, conditional writes, indexes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import structlog
from pymongo.errors import DuplicateKeyError

from libs.common.contracts.events import Event
from libs.common.contracts.identity import Plan
from libs.common.contracts.users import UserState
from libs.common.messaging.outbox import PENDING, Outbox, OutboxRelay, pending
from libs.common.mongo import UNAVAILABLE_ERRORS, Collection, Database, Document
from services.auth.domain import Session, User
from services.auth.errors import EmailTakenError, UsernameTakenError

# A caller waits no longer than this for an event to be on the stream.
_ANNOUNCE_WITHIN_S = 1.0

log = structlog.get_logger(__name__)

_USER_FIELDS = [field.name for field in fields(User)]
_SESSION_FIELDS = [field.name for field in fields(Session)]


class MongoUsers:
    """One document per user, with the events it has yet to publish."""

    def __init__(self, database: Database, relay: OutboxRelay) -> None:
        self._users: Collection = database["users"]
        self._outbox = relay.attach(self._users)

    async def prepare(self) -> None:
        """Make the indexes. `*_key` fields are lower-case copies: names and addresses are unique in any case."""
        await self._users.create_index("email_key", unique=True, name="email")
        await self._users.create_index("username_key", unique=True, name="username")
        await self._users.create_index("google_subject", unique=True, sparse=True, name="google")

    async def insert(self, user: User, events: Sequence[Event]) -> None:
        """Store a new account. Raises EmailTakenError, UsernameTakenError."""
        document = {**_user_document(user), "_id": user.id, PENDING: pending(events)}
        try:
            await self._users.insert_one(document)
        except DuplicateKeyError as error:
            # A write that was repeated after a lost answer is refused by its own first half.
            if await self._users.find_one({"_id": user.id}, {"_id": 1}) is not None:
                return
            if await self.by_email(user.email) is not None:
                raise EmailTakenError from error
            raise UsernameTakenError from error
        self._outbox.poke(user.id)

    async def get(self, user_id: str) -> User | None:
        """By id."""
        return await self._one({"_id": user_id})

    async def by_name(self, username: str) -> User | None:
        """By user name, in any case."""
        return await self._one({"username_key": username.lower()})

    async def by_email(self, email: str) -> User | None:
        """By address, in any case."""
        return await self._one({"email_key": email.lower()})

    async def by_google_subject(self, subject: str) -> User | None:
        """By Google's id of the account."""
        return await self._one({"google_subject": subject})

    async def save(self, user: User, events: Sequence[Event]) -> bool:
        """Store `user` if the stored version is the one before; False when somebody else was faster."""
        result = await self._users.update_one(
            {"_id": user.id, "version": user.version - 1},
            {"$set": _user_document(user), "$push": {PENDING: {"$each": pending(events)}}},
        )
        if result.modified_count == 1 and events:
            self._outbox.poke(user.id)
        return result.modified_count == 1

    async def page(self, query: str, after: str | None, limit: int) -> list[User]:
        """Accounts whose name or address contains `query`, by id, those after the id `after`."""
        conditions: dict[str, Any] = {}
        if query:
            contains = {"$regex": re.escape(query.lower())}
            conditions["$or"] = [{"username_key": contains}, {"email_key": contains}]
        if after is not None:
            conditions["_id"] = {"$gt": after}
        cursor = self._users.find(conditions, {PENDING: 0}).sort("_id", 1).limit(limit)
        return [_user(document) for document in await cursor.to_list(limit)]

    async def announce(self, user_id: str) -> None:
        """Bring the account's events to the stream now, as far as that takes no more than a second."""
        await _announce(self._outbox, user_id)

    async def _one(self, conditions: Document) -> User | None:
        document = await self._users.find_one(conditions, {PENDING: 0})
        return _user(document) if document is not None else None


async def recall_user(users: Collection, state: UserState) -> None:
    """Keep what an event says of an account, unless a newer one was there: for a replay, which knows nothing else."""
    values = {
        "username": state.username,
        "plan": state.plan.value,
        "is_active": state.is_active,
        "is_verified": state.is_verified,
        "version": state.version,
    }
    try:
        await users.update_one({"_id": state.user_id, "version": {"$lt": state.version}}, {"$set": values}, upsert=True)
    except DuplicateKeyError:
        return


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
        await self._sessions.insert_one({**_document(session, _SESSION_FIELDS), "_id": session.id})

    async def discard(self, session_id: str) -> None:
        """Remove one whose tokens nobody has got."""
        await self._sessions.delete_one({"_id": session_id})

    async def by_family(self, family_hash: str) -> Session | None:
        """The session a refresh token belongs to."""
        document = await self._sessions.find_one({"family_hash": family_hash}, {PENDING: 0})
        return _session(document) if document is not None else None

    async def live_ids(self, user: User, now: datetime) -> list[str]:
        """Ids of the user's sessions that can still be used."""
        conditions = {
            "user_id": user.id,
            "epoch": user.session_epoch,
            "revoked_at": None,
            "expires_at": {"$gt": now},
        }
        return [document["_id"] async for document in self._sessions.find(conditions, {"_id": 1})]

    async def rotate(self, session: Session, secret_hash: str, now: datetime, expires_at: datetime) -> bool:
        """Make `secret_hash` the current one if it still is `session.secret_hash` and the session is alive."""
        result = await self._sessions.update_one(
            {"_id": session.id, "secret_hash": session.secret_hash, "revoked_at": None},
            {"$set": {"secret_hash": secret_hash, "last_used_at": now, "expires_at": expires_at}},
        )
        return result.modified_count == 1

    async def end(self, session_id: str, now: datetime, events: Sequence[Event]) -> bool:
        """Mark it revoked, with its events, in one write; False when it was before or is gone."""
        result = await self._sessions.update_one(
            {"_id": session_id, "revoked_at": None},
            {"$set": {"revoked_at": now}, "$push": {PENDING: {"$each": pending(events)}}},
        )
        return result.modified_count == 1

    async def announce(self, session_id: str) -> None:
        """Bring the session's events to the stream now, as far as that takes no more than a second."""
        await _announce(self._outbox, session_id)


async def _announce(outbox: Outbox, key: str) -> None:
    """What is not out when the time is over, the sweep finds; published twice, it is dropped by the stream."""
    try:
        await asyncio.wait_for(outbox.flush(key), _ANNOUNCE_WITHIN_S)
    except (TimeoutError, *UNAVAILABLE_ERRORS) as error:
        log.warning("event is late, the sweep will publish it", error=repr(error))


def _document(entity: User | Session, names: Sequence[str]) -> Document:
    return {name: getattr(entity, name) for name in names if name != "id"}


def _user_document(user: User) -> Document:
    document = _document(user, _USER_FIELDS)
    if user.google_subject is None:
        # A sparse unique index takes many documents without the field, but only one with null.
        del document["google_subject"]
    return {
        **document,
        "plan": user.plan.value,
        "email_key": user.email.lower(),
        "username_key": user.username.lower(),
    }


def _user(document: Document) -> User:
    known = {name: document[name] for name in _USER_FIELDS if name in document}
    return User(**{**known, "id": document["_id"], "plan": Plan(document["plan"])})


def _session(document: Document) -> Session:
    known = {name: document[name] for name in _SESSION_FIELDS if name in document}
    return Session(**{**known, "id": document["_id"]})
