"""Accounts in MongoDB: queries, conditional writes, indexes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from pymongo.errors import DuplicateKeyError

from libs.common.contracts.events import Event
from libs.common.contracts.identity import Plan
from libs.common.contracts.users import UserState
from libs.common.messaging.outbox import PENDING, OutboxRelay, pending
from libs.common.mongo import Collection, Database, Document
from services.auth.domain.users import User
from services.auth.errors import EmailTakenError, UsernameTakenError
from services.auth.repository.writes import announce, fields_of

_USER_FIELDS = [field.name for field in fields(User)]


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
        conditions: dict[str, Any] = {"deleted_at": None}
        if query:
            contains = {"$regex": re.escape(query.lower())}
            conditions["$or"] = [{"username_key": contains}, {"email_key": contains}]
        if after is not None:
            conditions["_id"] = {"$gt": after}
        cursor = self._users.find(conditions, {PENDING: 0}).sort("_id", 1).limit(limit)
        return [_user(document) for document in await cursor.to_list(limit)]

    async def announce(self, user_id: str) -> None:
        """Bring the account's events to the stream now, as far as that takes no more than a second."""
        await announce(self._outbox, user_id)

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
        "session_epoch": state.session_epoch,
        "version": state.version,
    }
    try:
        await users.update_one({"_id": state.user_id, "version": {"$lt": state.version}}, {"$set": values}, upsert=True)
    except DuplicateKeyError:
        return


def _user_document(user: User) -> Document:
    document = fields_of(user, _USER_FIELDS)
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
