"""Connections to the servers of a backup, for its length."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.aio.client import Client as NatsClient
from nats.errors import Error as NatsError
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from libs.common.backup import databases
from libs.common.errors import UnavailableError

_CONNECT_S = 3.0


@asynccontextmanager
async def connected(settings: Mapping[str, str]) -> AsyncIterator[tuple[NatsClient, MongoClient[Any]]]:
    """NATS_URL and MONGODB_URL. Raises UnavailableError."""
    mongo = await asyncio.to_thread(_database, settings["MONGODB_URL"])
    try:
        servers = [url.strip() for url in settings["NATS_URL"].split(",")]
        try:
            client = await nats.connect(
                servers, connect_timeout=_CONNECT_S, allow_reconnect=False, error_cb=_ignore, name="devpocket-backup"
            )
        except (OSError, NatsError, TimeoutError) as error:
            raise UnavailableError(f"NATS cannot be reached: {error or type(error).__name__}") from error
        try:
            yield client, mongo
        finally:
            with contextlib.suppress(NatsError, asyncio.CancelledError):
                await client.close()
    finally:
        mongo.close()


def _database(url: str) -> MongoClient[Any]:
    client: MongoClient[Any] = databases.connect(url)
    try:
        client.admin.command("ping")
    except PyMongoError as error:
        client.close()
        raise UnavailableError(f"MongoDB cannot be reached or refuses: {error}") from error
    return client


async def _ignore(_error: Exception) -> None:
    """Errors of the connection reach the caller through its calls."""
