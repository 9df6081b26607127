"""Mailed links in MongoDB, by the hash of their token."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime

from pymongo.errors import DuplicateKeyError

from libs.common.contracts.users import MailPurpose
from libs.common.mongo import Collection, Database
from services.auth.domain.links import Link
from services.auth.repository.writes import fields_of

_FIELDS = [field.name for field in fields(Link)]


class MongoLinks:
    """Implements Links. A used link stays until it expires, so that a mail that is sent again brings it not back."""

    def __init__(self, database: Database) -> None:
        self._links: Collection = database["links"]

    async def prepare(self) -> None:
        """Make the indexes."""
        await self._links.create_index("user_id", name="user")
        await self._links.create_index("expires_at", expireAfterSeconds=0, name="expiry")

    async def keep(self, link: Link) -> None:
        """Store it, unless it is there: then it may have been used."""
        try:
            await self._links.insert_one({**fields_of(link, _FIELDS), "_id": link.hash, "used_at": None})
        except DuplicateKeyError:
            return

    async def use(self, link_hash: str, purpose: MailPurpose, now: datetime) -> Link | None:
        """Take it out of use; None when there is none that is good for this."""
        document = await self._links.find_one_and_update(
            {"_id": link_hash, "purpose": purpose, "used_at": None, "expires_at": {"$gt": now}},
            {"$set": {"used_at": now}},
        )
        return Link(**{name: document[name] for name in _FIELDS}) if document is not None else None

    async def remove_all(self, user_id: str) -> None:
        """Forget all of a user's."""
        await self._links.delete_many({"user_id": user_id})
