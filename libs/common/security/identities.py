"""What auth's events say about users and their API keys: the read model that each other service keeps of them."""

from __future__ import annotations

from datetime import timedelta

from pymongo.errors import DuplicateKeyError

from libs.common.clock import utc_now
from libs.common.contracts.events import EventData
from libs.common.contracts.identity import Plan, Scope
from libs.common.contracts.users import UserApiKeyCreated, UserApiKeyRevoked, UserDeleted, UserState
from libs.common.errors import UnavailableError
from libs.common.migrations.plan import Backfill
from libs.common.mongo import UNAVAILABLE_ERRORS, Collection, Database, Document
from libs.common.security.api_keys import KnownKey

USERS_SUBJECT = "devpocket.user.*.*"


def user_migrations(first: int) -> tuple[Backfill, Backfill]:
    """For each service that has this read model; `first`: their numbers begin there.

    Documents from before users could be deleted, and from before all their sessions could be ended at once.
    """
    return (
        _user_backfill(first, "users-say-whether-deleted", "is_deleted", False),
        _user_backfill(first + 1, "users-have-a-session-epoch", "session_epoch", 0),
    )


def _user_backfill(number: int, name: str, field: str, value: bool | int) -> Backfill:
    old, change = {field: {"$exists": False}}, {"$set": {field: value}}
    return Backfill(number, name, "users", old, change, blocking=True)


class Identities:
    """Collections `users` and `api_keys`. Implements KeyDirectory; safe to tell the same again, in any order."""

    def __init__(self, database: Database, *, tombstone_days: int = 31) -> None:
        """`tombstone_days`: longer than events last, so that none can bring a revoked key back."""
        self._tombstone_life = timedelta(days=tombstone_days)
        self._users: Collection = database["users"]
        self._keys: Collection = database["api_keys"]

    async def prepare(self) -> None:
        """Make the index that finds a user's keys."""
        await self._keys.create_index("user_id", name="user")
        await self._keys.create_index("forget_at", expireAfterSeconds=0, name="tombstones")

    async def apply(self, data: EventData) -> None:
        """Take over what an event says, unless something newer is known."""
        if isinstance(data, UserState):
            await self._keep_user(data)
        if isinstance(data, UserDeleted):
            await self._keys.update_many({"user_id": data.user_id}, {"$set": self._tombstone()})
        elif isinstance(data, UserApiKeyCreated):
            await self._keep_key(data)
        elif isinstance(data, UserApiKeyRevoked):
            # Kept without its hash, so that a creation that is heard late does not bring it back.
            values = {"user_id": data.user_id, **self._tombstone()}
            await self._keys.update_one({"_id": data.key_id}, {"$set": values}, upsert=True)

    def _tombstone(self) -> Document:
        return {"secret_hash": None, "forget_at": utc_now() + self._tombstone_life}

    async def find(self, key_id: str) -> KnownKey | None:
        """See KeyDirectory."""
        try:
            key = await self._keys.find_one({"_id": key_id})
            if key is None or key["secret_hash"] is None:
                return None
            user = await self._users.find_one({"_id": key["user_id"]})
        except UNAVAILABLE_ERRORS as error:
            raise UnavailableError("API keys cannot be checked right now, please try again in a moment") from error
        return known_key(key, user) if user is not None and not user["is_deleted"] else None

    async def _keep_user(self, state: UserState) -> None:
        values = {
            "plan": state.plan.value,
            "is_active": state.is_active,
            "is_verified": state.is_verified,
            "is_deleted": isinstance(state, UserDeleted),
            "session_epoch": state.session_epoch,
            "version": state.version,
        }
        older = {"_id": state.user_id, "version": {"$lt": state.version}}
        try:
            await self._users.update_one(older, {"$set": values}, upsert=True)
        except DuplicateKeyError:
            # Either what is there is as new, or an older event has just made the document.
            await self._users.update_one(older, {"$set": values})

    async def _keep_key(self, key: UserApiKeyCreated) -> None:
        described = {
            "user_id": key.user_id,
            "scopes": [scope.value for scope in key.scopes],
            "expires_at": key.expires_at,
        }
        try:
            await self._keys.insert_one({"_id": key.key_id, "secret_hash": key.secret_hash, **described})
        except DuplicateKeyError:
            # Known, or revoked: that was heard first, and stays.
            await self._keys.update_one({"_id": key.key_id}, {"$set": described})


def known_key(key: Document, user: Document) -> KnownKey:
    """From a key's and its owner's document, here or in auth."""
    return KnownKey(
        id=key["_id"],
        secret_hash=key["secret_hash"],
        scopes=frozenset(Scope(scope) for scope in key["scopes"]),
        expires_at=key["expires_at"],
        user_id=user["_id"],
        plan=Plan(user["plan"]),
        is_active=user["is_active"],
        is_verified=user["is_verified"],
        session_epoch=user.get("session_epoch", 0),
    )
