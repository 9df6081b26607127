"""What the collections of this service have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from libs.common.messaging.outbox import PENDING, Outbox
from libs.common.mongo import UNAVAILABLE_ERRORS, Collection, Document

# A caller waits no longer than this for an event to be on the stream.
_ANNOUNCE_WITHIN_S = 1.0

log = structlog.get_logger(__name__)


async def announce(outbox: Outbox, key: str) -> None:
    """What is not out when the time is over, the sweep finds; published twice, it is dropped by the stream."""
    try:
        await asyncio.wait_for(outbox.flush(key), _ANNOUNCE_WITHIN_S)
    except (TimeoutError, *UNAVAILABLE_ERRORS) as error:
        log.warning("event is late, the sweep will publish it", error=repr(error))


async def remove_published(collection: Collection, user_id: str) -> bool:
    """Remove a user's documents that have no events left to publish; False when some had to stay."""
    await collection.delete_many({"user_id": user_id, f"{PENDING}.0": {"$exists": False}})
    return await collection.find_one({"user_id": user_id}, {"_id": 1}) is None


def fields_of(entity: Any, names: Sequence[str]) -> Document:
    """An entity's fields but its id."""
    return {name: getattr(entity, name) for name in names if name != "id"}
