"""The `users` collection, read: libs/common/security/identities.py keeps it from auth's events."""

from __future__ import annotations

from libs.common.contracts.identity import Plan
from libs.common.mongo import Database
from services.envs.plans import Account

_FIELDS = dict.fromkeys(("plan", "is_active", "is_verified", "is_deleted", "version"), 1)


class AccountRepository:
    """Implements AccountStore. All access is by the user's id, so no further index is needed."""

    def __init__(self, database: Database) -> None:
        self._collection = database["users"]

    async def get(self, user_id: str) -> Account | None:
        """See AccountStore."""
        document = await self._collection.find_one({"_id": user_id}, _FIELDS)
        if document is None:
            return None
        return Account(
            user_id=user_id,
            plan=Plan(document["plan"]),
            is_active=document["is_active"],
            is_verified=document["is_verified"],
            is_deleted=document["is_deleted"],
            version=document["version"],
        )
