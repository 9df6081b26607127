"""The `users` collection: a read model of auth's users."""

from __future__ import annotations

from pymongo.errors import DuplicateKeyError

from libs.common.contracts.identity import Plan
from libs.common.mongo import Database
from services.envs.plans import Account


class AccountRepository:
    """Implements AccountStore. All access is by the user's id, so no further index is needed."""

    def __init__(self, database: Database) -> None:
        self._collection = database["users"]

    async def keep(self, account: Account) -> None:
        """See AccountStore."""
        values = {
            "plan": account.plan.value,
            "is_active": account.is_active,
            "is_verified": account.is_verified,
            "version": account.version,
        }
        older = {"_id": account.user_id, "version": {"$lt": account.version}}
        try:
            await self._collection.update_one(older, {"$set": values}, upsert=True)
        except DuplicateKeyError:
            # Either what is there is as new, or an older event has just made the document.
            await self._collection.update_one(older, {"$set": values})

    async def get(self, user_id: str) -> Account | None:
        """See AccountStore."""
        document = await self._collection.find_one({"_id": user_id})
        if document is None:
            return None
        return Account(
            user_id=user_id,
            plan=Plan(document["plan"]),
            is_active=document["is_active"],
            is_verified=document["is_verified"],
            version=document["version"],
        )
