"""What a stack keeps, read behind its back: its settings, databases, Redis and streams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.js import JetStreamContext
from redis.asyncio import Redis

from libs.common import mongo
from libs.common.clock import utc_now
from libs.common.history.reader import StreamReader
from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM
from services.auth.assembly import make_key_ring
from services.auth.keyring import SigningKey
from services.auth.settings import AuthSettings
from tests.support.stack import LocalStack

SERVICES = ("auth", "envs", "orchestrator", "terminal")


class Stores:
    """Open connections to the servers of one stack."""

    def __init__(self, settings: AuthSettings, client: mongo.Client, redis: Redis, js: JetStreamContext) -> None:
        self.settings = settings
        self.jetstream = js
        self._client = client
        self._redis = redis

    def database(self, service: str) -> mongo.Database:
        """The database of a service."""
        return mongo.database(self._client, self.settings, service)

    async def signing_key(self) -> SigningKey:
        """What access tokens are signed with now."""
        ring = make_key_ring(self.settings)
        ring.attach(self.database("auth"))
        await ring.load()
        return await ring.signing_key(utc_now())

    async def documents(self) -> dict[str, str]:
        """Every document of every database, as text by `database.collection`."""
        found = {}
        for name in await self._client.list_database_names():
            for collection in await self._client[name].list_collection_names():
                documents = await self._client[name][collection].find({}).to_list(None)
                found[f"{name}.{collection}"] = "\n".join(map(repr, documents))
        return found

    async def in_redis(self) -> str:
        """Every key with all that it holds."""
        lines = [f"{key} {await self._value(key)!r}" async for key in self._redis.scan_iter(count=1000)]
        return "\n".join(lines)

    async def _value(self, key: str) -> Any:
        redis: Any = self._redis
        readers = {
            "string": lambda: redis.get(key),
            "hash": lambda: redis.hgetall(key),
            "list": lambda: redis.lrange(key, 0, -1),
            "set": lambda: redis.smembers(key),
            "zset": lambda: redis.zrange(key, 0, -1, withscores=True),
            "none": lambda: redis.get(key),
        }
        return await readers[await redis.type(key)]()

    async def streams(self) -> dict[str, str]:
        """Every message of both streams, with subject and headers, as it is stored."""
        reader = StreamReader(self.jetstream)
        return {
            stream: "\n".join(
                [
                    f"{item.subject} {dict(item.headers)} {item.payload.decode(errors='replace')}"
                    async for item in reader.read(stream, ">")
                ]
            )
            for stream in (EVENTS_STREAM, DEAD_LETTER_STREAM)
        }


@asynccontextmanager
async def stores_of(stack: LocalStack) -> AsyncIterator[Stores]:
    """Connected for the length of the block."""
    values = json.loads((stack.data_dir / "environment.json").read_text())
    settings = AuthSettings(_env_file=None, **{name.lower(): value for name, value in values.items()})
    client = mongo.connect(settings)
    redis = Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True)
    bus = await nats.connect(settings.nats_url.get_secret_value())
    try:
        yield Stores(settings, client, redis, bus.jetstream())
    finally:
        await bus.close()
        await redis.aclose()
        await mongo.close(client)
