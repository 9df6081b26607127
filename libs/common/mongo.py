"""MongoDB, behind one seam.

Motor is in its last year of support, so everything outside this file is typed against PyMongo's own async client,
whose collection methods Motor shares as far as the repositories use them (`aggregate` and `watch` differ: avoid them).
Swapping the driver means changing `connect` and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConnectionFailure, ExecutionTimeout, OperationFailure, WaitQueueTimeoutError

from libs.common.mongo_pool import PoolWatch
from libs.common.settings import CommonSettings

Document = dict[str, Any]
Collection = AsyncCollection[Document]
Database = AsyncDatabase[Document]
Client = AsyncMongoClient[Document]

UNAVAILABLE_ERRORS = (ConnectionFailure, ExecutionTimeout, WaitQueueTimeoutError)

# A primary election takes up to 12 s by default; a phone should get its 503 sooner and ask again.
_OPTIONS = {"serverSelectionTimeoutMS": 3_000, "connectTimeoutMS": 3_000, "socketTimeoutMS": 20_000}
_AGGREGATE_MS = 2_000
# IndexOptionsConflict, IndexKeySpecsConflict.
_OTHER_OPTIONS = (85, 86)


def connect(settings: CommonSettings, pool: PoolWatch | None = None) -> Client:
    """A client; connections are made at first use. `pool` is told of each.

    What the URL says counts: other times, or `retryWrites=false`, which some servers ask for.
    """
    url = settings.mongodb_url.get_secret_value()
    options: dict[str, Any] = {name: value for name, value in _OPTIONS.items() if f"{name.lower()}=" not in url.lower()}
    client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(
        url,
        **options,
        tz_aware=True,
        appname="devpocket",
        event_listeners=[pool] if pool is not None else [],
    )
    return cast("Client", client)


def database(client: Client, settings: CommonSettings, service: str) -> Database:
    """The database that `service` owns."""
    return client[f"{settings.database_name}_{service}"]


async def aggregate(
    collection: Collection, pipeline: Sequence[Mapping[str, Any]], *, most_ms: int = _AGGREGATE_MS
) -> list[Document]:
    """The first batch of what the pipeline gives: for groups, of which there are few. Raises ExecutionTimeout.

    As a command, which Motor and PyMongo take alike.
    """
    command = {"aggregate": collection.name, "pipeline": list(pipeline), "cursor": {}, "maxTimeMS": most_ms}
    answer = await collection.database.command(command)
    batch: list[Document] = answer["cursor"]["firstBatch"]
    return batch


async def expire(collection: Collection, field: str, *, life_s: int, name: str) -> None:
    """Documents go `life_s` seconds after the time in `field`; an index that says otherwise is changed.

    For lives that are settings: making an index again with another life is refused.
    """
    try:
        await collection.create_index(field, expireAfterSeconds=life_s, name=name)
    except OperationFailure as error:
        if error.code not in _OTHER_OPTIONS:
            raise
        change = {"name": name, "expireAfterSeconds": life_s}
        await collection.database.command("collMod", collection.name, index=change)


async def ping(client: Client) -> None:
    """Raises one of UNAVAILABLE_ERRORS, or OperationFailure when the credentials are wrong."""
    await client.admin.command("ping")


async def close(client: Client) -> None:
    """Close all connections."""
    # Motor's close is synchronous, PyMongo's is a coroutine.
    closing: object = client.close()
    if hasattr(closing, "__await__"):
        await closing
