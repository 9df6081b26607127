"""The outbox: events ride in the document whose change they describe, and a relay takes them to the stream.

A repository puts `pending(events)` into the same single-document write as the state (`$push … $each`), then pokes the
relay. The relay publishes in order, waits for each ack, and pulls what is stored. What a crash leaves behind is found
by a sweep, of this or of any other replica: publishing twice is harmless, because the stream drops a repeated
`Nats-Msg-Id` within its duplicate window and handlers are idempotent beyond it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakValueDictionary

import structlog

from libs.common.contracts.events import Event
from libs.common.messaging.broker import Bus
from libs.common.messaging.streams import EVENTS_STREAM
from libs.common.mongo import Collection, aggregate
from libs.common.tasks import end_tasks
from libs.common.telemetry import continued_trace, publishing, trace_headers

PENDING = "pending_events"
_SWEEP_INTERVAL_S = 2.0
_SWEEP_BATCH = 200
_WORKERS = 8
# Documents that wait for a worker; what does not fit is left to the sweep.
_MAX_POKED = 10_000

# Ids of events are UUIDv7: the least is the oldest.
_BACKLOG: list[dict[str, Any]] = [
    {"$match": {f"{PENDING}.id": {"$exists": True}}},
    {"$unwind": f"${PENDING}"},
    {"$group": {"_id": None, "events": {"$sum": 1}, "oldest": {"$min": f"${PENDING}.id"}}},
]

log = structlog.get_logger(__name__)


def pending(events: Iterable[Event]) -> list[dict[str, Any]]:
    """What goes into the document's `pending_events`: subject, headers (with trace context) and the envelope."""
    headers = trace_headers()
    return [
        {
            "id": event.id,
            "subject": event.nats_subject,
            "headers": {**headers, "Nats-Msg-Id": event.id},
            "event": event.model_dump(mode="json", exclude_none=True),
        }
        for event in events
    ]


@dataclass(frozen=True, slots=True)
class OutboxBacklog:
    """How many events are still to be published, and the id of the oldest, which tells its time."""

    events: int = 0
    oldest_id: str | None = None


class Publisher(Protocol):
    """Stores one message in the event stream."""

    @property
    def connected(self) -> bool:
        """Whether publishing can work right now."""
        ...

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Returns once the stream has it. Raises any Exception otherwise."""
        ...


class StreamPublisher:
    """Publishes through the service's bus; `stream=` makes a subject that no stream captures an error."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    @property
    def connected(self) -> bool:
        """Whether publishing can work right now."""
        return self._bus.connected

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Wait for the stream's ack."""
        await self._bus.jetstream.publish(subject, payload, stream=EVENTS_STREAM, headers=dict(headers))


class _Nobody:
    """Implements Publisher: never connected."""

    connected = False

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Raises ConnectionError."""
        raise ConnectionError("nobody hears this relay")


class OutboxRelay:
    """Takes pending events of some collections to the stream, in order per document."""

    def __init__(self, publisher: Publisher, *, sweep_interval_s: float = _SWEEP_INTERVAL_S) -> None:
        self._publisher = publisher
        self._sweep_interval_s = sweep_interval_s
        self._collections: list[Collection] = []
        self._poked: asyncio.Queue[tuple[Collection, Any]] = asyncio.Queue(_MAX_POKED)
        self._locks: WeakValueDictionary[tuple[str, Any], asyncio.Lock] = WeakValueDictionary()
        self._sweeping = asyncio.Semaphore(_WORKERS)
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def unheard(cls) -> OutboxRelay:
        """A relay for replays: what is written stays in the documents, and nobody hears of it."""
        return cls(_Nobody())

    def attach(self, collection: Collection) -> Outbox:
        """Relay this collection's events too."""
        self._collections.append(collection)
        return Outbox(self, collection)

    async def start(self) -> None:
        """Make the index that the sweep needs, then run workers and sweep."""
        for collection in self._collections:
            await collection.create_index([(f"{PENDING}.id", 1)], sparse=True, name="outbox")
        self._tasks = [asyncio.create_task(self._work()) for _ in range(_WORKERS)]
        self._tasks.append(asyncio.create_task(self._sweep_forever()))

    async def stop(self) -> None:
        """Stop; what is pending stays in the documents."""
        await end_tasks(self._tasks)
        self._tasks = []

    def poke(self, collection: Collection, key: Any) -> None:
        """Look at this document soon. While NATS is away, or too much waits, the sweep will find it instead."""
        if self._publisher.connected and not self._poked.full():
            self._poked.put_nowait((collection, key))

    async def flush(self, collection: Collection, key: Any) -> bool:
        """Publish this document's events now. False when some could not be published; the sweep will."""
        lock_key = (collection.name, key)
        lock = self._locks.get(lock_key)
        if lock is None:
            lock = self._locks[lock_key] = asyncio.Lock()
        async with lock:
            document = await collection.find_one({"_id": key}, {PENDING: 1})
            entries = (document or {}).get(PENDING) or []
            stored = await self._publish(entries)
            if stored:
                await collection.update_one({"_id": key}, {"$pull": {PENDING: {"id": {"$in": stored}}}})
            return len(stored) == len(entries)

    async def _publish(self, entries: list[dict[str, Any]]) -> list[str]:
        stored: list[str] = []
        for entry in entries:
            payload = json.dumps(entry["event"], separators=(",", ":")).encode()
            try:
                with publishing(entry["subject"], entry["id"], entry["headers"]) as headers:
                    await self._publisher.publish(entry["subject"], payload, headers)
            except Exception as error:
                # The order within a document must hold, so the rest waits with it.
                with continued_trace("", entry["headers"], quiet=True):
                    log.warning("event not published yet", subject=entry["subject"], error=repr(error))
                break
            stored.append(entry["id"])
        return stored

    async def _work(self) -> None:
        while True:
            collection, key = await self._poked.get()
            try:
                await self.flush(collection, key)
            except Exception as error:
                log.warning("outbox relay failed, the sweep will retry", error=repr(error))

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(self._sweep_interval_s)
            if not self._publisher.connected:
                continue
            try:
                await self.sweep()
            except Exception as error:
                log.warning("outbox sweep failed, will be retried", error=repr(error))

    async def sweep(self) -> int:
        """Publish leftovers of all collections, oldest first; returns how many documents had some."""
        found = 0
        for collection in self._collections:
            while batch := await self._leftovers(collection):
                found += len(batch)
                published = await asyncio.gather(*(self._flushed(collection, key) for key in batch))
                # One that cannot be published must not keep the others from it; but when none can, waiting is better.
                if len(batch) < _SWEEP_BATCH or not any(published):
                    break
        return found

    async def backlog(self) -> OutboxBacklog:
        """Of all collections, by an index that holds nothing else. Raises what the database raises."""
        found = [group for collection in self._collections for group in await aggregate(collection, _BACKLOG)]
        oldest = min((group["oldest"] for group in found), default=None)
        return OutboxBacklog(sum(group["events"] for group in found), oldest)

    async def _leftovers(self, collection: Collection) -> list[Any]:
        cursor = collection.find({f"{PENDING}.id": {"$exists": True}}, {f"{PENDING}.id": 1}).limit(_SWEEP_BATCH)
        documents = [document for document in await cursor.to_list(_SWEEP_BATCH) if document.get(PENDING)]
        # Ids of events are UUIDv7: their order is that of time.
        return [document["_id"] for document in sorted(documents, key=lambda document: document[PENDING][0]["id"])]

    async def _flushed(self, collection: Collection, key: Any) -> bool:
        async with self._sweeping:
            return self._publisher.connected and await self.flush(collection, key)


class Outbox:
    """The relay as one repository sees it."""

    def __init__(self, relay: OutboxRelay, collection: Collection) -> None:
        self._relay = relay
        self._collection = collection

    def poke(self, key: Any) -> None:
        """The document `key` has new pending events."""
        self._relay.poke(self._collection, key)

    async def flush(self, key: Any) -> bool:
        """Publish the document's events before going on; False when NATS is away."""
        return await self._relay.flush(self._collection, key)
