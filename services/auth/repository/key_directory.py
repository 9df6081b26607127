"""Where this service itself looks API keys up: in its own collections, which are the source of what others know."""

from __future__ import annotations

from libs.common.errors import UnavailableError
from libs.common.messaging.outbox import PENDING
from libs.common.mongo import UNAVAILABLE_ERRORS, Database
from libs.common.security.api_keys import KnownKey
from libs.common.security.identities import known_key


class MongoKeyDirectory:
    """Implements KeyDirectory."""

    def __init__(self) -> None:
        self._database: Database | None = None

    def attach(self, database: Database) -> None:
        """Where the keys are. To be called once, before anything else: the platform wants the directory first."""
        self._database = database

    async def find(self, key_id: str) -> KnownKey | None:
        """See KeyDirectory."""
        if self._database is None:
            raise RuntimeError("the key directory is not attached to a database")
        keys, users = self._database["api_keys"], self._database["users"]
        try:
            key = await keys.find_one({"_id": key_id, "revoked_at": None}, {PENDING: 0})
            user = await users.find_one({"_id": key["user_id"]}, {PENDING: 0}) if key is not None else None
        except UNAVAILABLE_ERRORS as error:
            raise UnavailableError("API keys cannot be checked right now, please try again in a moment") from error
        return known_key(key, user) if key is not None and user is not None else None
