"""What everything holds and has used so far: processes, stream, databases, cache."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bson
import nats
import psutil
from nats.aio.client import Client as NatsClient
from nats.js import JetStreamContext
from pymongo import AsyncMongoClient
from redis.asyncio import Redis

from libs.common.messaging.outbox import PENDING
from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM
from tests.bench.scale.ground import Ground

_SAMPLED = 500
# Where outboxes are, and what grows with environments.
COLLECTIONS = {
    "auth": ("users", "sessions", "audit"),
    "envs": ("environments", "users", "metrics"),
    "orchestrator": ("workspaces", "users"),
    "terminal": ("environments", "users"),
}
_OUTBOXES = (("auth", "users"), ("auth", "sessions"), ("envs", "environments"), ("orchestrator", "workspaces"))


@dataclass(frozen=True)
class Reading:
    """Bytes resident and CPU seconds so far by process; the stream; Redis."""

    resident: Mapping[str, int]
    cpu_s: Mapping[str, float]
    stream_events: int
    stream_bytes: int
    redis_bytes: int
    redis_keys: int

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


class Gauges:
    """Reads them. Connections are made at the first reading, and closed with `close`."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._mongo: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(ground.servers.mongodb_url, tz_aware=True)
        self._redis = Redis.from_url(ground.servers.redis_url)
        self._bus: NatsClient | None = None

    async def close(self) -> None:
        """Close all connections."""
        await self._mongo.close()
        await self._redis.aclose()
        if self._bus is not None:
            await self._bus.close()

    async def read(self) -> Reading:
        """Everything now."""
        stream = (await (await self._jetstream()).stream_info(EVENTS_STREAM)).state
        info = await self._redis.info("memory")
        return Reading(
            resident={name: _resident(pid) for name, pid in self._ground.pids.items()},
            cpu_s={name: _cpu_s(pid) for name, pid in self._ground.pids.items()},
            stream_events=stream.messages,
            stream_bytes=stream.bytes,
            redis_bytes=int(info["used_memory"]),
            redis_keys=int(await self._redis.dbsize()),
        )

    def collection(self, service: str, name: str) -> Any:
        """A collection of a service."""
        return self._mongo[f"devpocket_{service}"][name]

    async def documents(self) -> dict[str, dict[str, float]]:
        """By collection: how many documents, and the average bytes of a sample."""
        found = {}
        for service, names in COLLECTIONS.items():
            for name in names:
                collection = self.collection(service, name)
                sizes = [len(bson.encode(document)) async for document in collection.find().limit(_SAMPLED)]
                count = await collection.count_documents({})
                found[f"{service}.{name}"] = {"count": count, "bytes": sum(sizes) / max(len(sizes), 1)}
        return found

    async def lag(self) -> dict[str, int]:
        """By durable consumer: messages that are not acknowledged yet, those not delivered included."""
        consumers = await (await self._jetstream()).consumers_info(EVENTS_STREAM)
        return {str(info.name): (info.num_pending or 0) + (info.num_ack_pending or 0) for info in consumers}

    async def unpublished(self) -> int:
        """Documents with events in their outbox."""
        query = {f"{PENDING}.id": {"$exists": True}}
        return sum([await self.collection(*where).count_documents(query) for where in _OUTBOXES])

    async def dead_letters(self) -> int:
        """Messages that somebody gave up."""
        return int((await (await self._jetstream()).stream_info(DEAD_LETTER_STREAM)).state.messages)

    def disk_bytes(self) -> dict[str, int]:
        """What lies in the folders of the servers that were started here."""
        folders = {"mongodb": self._ground.folder / "mongo", "nats": self._ground.folder / "jetstream"}
        return {name: _size(folder) for name, folder in folders.items() if folder.is_dir()}

    async def _jetstream(self) -> JetStreamContext:
        if self._bus is None:
            self._bus = await nats.connect(self._ground.servers.nats_url)
        return self._bus.jetstream()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_blocks * 512
    return total


def _resident(pid: int) -> int:
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def _cpu_s(pid: int) -> float:
    with contextlib.suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return 0.0
