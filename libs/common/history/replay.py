"""Rebuilds a service's read models from the event stream, in a scratch database, through the very same handlers.

Effects on the outside are off by construction: the handlers stand on a scratch database, on a clock that shows the time
of the event at hand, and on an outbox whose events are dropped. Nothing here knows what a handler does.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from libs.common.context import Cause, acting
from libs.common.contracts.events import UnknownEventError
from libs.common.errors import PermanentError
from libs.common.history.recorded import Recorded
from libs.common.messaging.outbox import PENDING
from libs.common.messaging.subscriptions import Delivery, Subscription, decoded
from libs.common.mongo import UNAVAILABLE_ERRORS, Database

# Events of different users are handled at the same time, as live replicas do.
_WORKERS = 8
_BATCH = 256
# Publishing again what is stored already happens within minutes, so this many ids find every repeat in practice.
_REMEMBERED_IDS = 100_000
_DROP_EVERY = 2_000
MAX_FAILURES_SHOWN = 100
_NEVER = datetime.fromtimestamp(0, UTC)


class EventClock:
    """The time of the event that is being handled, so that a replay gives the same today and tomorrow."""

    def __init__(self) -> None:
        # Of each task: users' events are handled at the same time.
        self._now: ContextVar[datetime] = ContextVar("devpocket_replay_now")

    def set(self, now: datetime) -> None:
        """From now on, in this task."""
        self._now.set(now)

    def __call__(self) -> datetime:
        return self._now.get(_NEVER)


@dataclass(frozen=True, slots=True)
class ReadModel:
    """A collection, and those of its fields that the stream determines. Dots lead into documents.

    `environment_field` names the environment that a document is about; None where it is about something else.
    """

    collection: str
    fields: tuple[str, ...]
    environment_field: str | None = None


@dataclass(frozen=True, slots=True)
class ReplayTarget:
    """A service's handlers on a scratch database.

    `subscriptions` are those that the live service has; `own` take what it has published itself back into the state
    that only its users had given it.
    """

    service: str
    subscriptions: Sequence[Subscription]
    own: Sequence[Subscription]
    models: Sequence[ReadModel]
    prepare: Callable[[], Awaitable[None]]

    def handlers(self, subject: str) -> list[Subscription]:
        """All that are meant by an event on this subject."""
        return [item for item in (*self.subscriptions, *self.own) if item.matches(subject)]


class TargetFactory(Protocol):
    """What a service registers under the entry-point group `devpocket.replays`."""

    def __call__(self, database: Database, clock: EventClock) -> ReplayTarget:
        """The service's handlers on this database and clock; settings come from the environment."""
        ...


@dataclass(frozen=True, slots=True)
class Failure:
    """An event that a handler could not take."""

    sequence: int
    subject: str
    error: str


@dataclass(slots=True)
class ReplayCounts:
    """What a replay has done. `failures` holds the first MAX_FAILURES_SHOWN, `failed` counts all."""

    events: int = 0
    handled: int = 0
    failed: int = 0
    last_sequence: int = 0
    failures: list[Failure] = field(default_factory=list)


Step = Callable[[Recorded, str | None], Awaitable[None]]
"""Called after each event, with what went wrong or None."""


class Replayer:
    """Runs recorded events through a target. May be fed several times: it goes on where it was.

    Raises one of libs.common.mongo.UNAVAILABLE_ERRORS when the database goes away.
    """

    def __init__(self, target: ReplayTarget, database: Database, clock: EventClock) -> None:
        self.counts = ReplayCounts()
        self._target = target
        self._database = database
        self._clock = clock
        self._seen: OrderedDict[str, None] = OrderedDict()

    async def feed(self, events: AsyncIterator[Recorded]) -> None:
        """As fast as it goes: events of one user in order, those of different users at the same time."""
        batch: list[tuple[Recorded, Delivery]] = []
        async for item in events:
            delivery = self._admitted(item)
            if delivery is not None:
                batch.append((item, delivery))
            if len(batch) == _BATCH:
                await self._handle_all(batch)
                batch = []
        await self._handle_all(batch)
        await self._drop_pending()

    async def feed_stepwise(self, events: AsyncIterator[Recorded], after: Step) -> None:
        """One event after the other; `after` may take its time."""
        async for item in events:
            failed = self.counts.failed
            delivery = self._admitted(item)
            if delivery is not None:
                await self._handle(item, delivery)
            problem = self.counts.failures[-1].error if self.counts.failed > failed and self.counts.failures else None
            if delivery is not None or problem is not None:
                await after(item, problem)
        await self._drop_pending()

    def _admitted(self, item: Recorded) -> Delivery | None:
        """The event, if anybody here handles it and it is no repeat."""
        self.counts.events += 1
        self.counts.last_sequence = item.stored_sequence
        if not self._target.handlers(item.subject):
            return None
        try:
            delivery = decoded(item.payload, subject=item.subject, sequence=item.sequence)
        except (PermanentError, UnknownEventError) as error:
            self._fail(item, error)
            return None
        if delivery.event.id in self._seen:
            return None
        self._seen[delivery.event.id] = None
        if len(self._seen) > _REMEMBERED_IDS:
            self._seen.popitem(last=False)
        return delivery

    async def _handle_all(self, batch: Sequence[tuple[Recorded, Delivery]]) -> None:
        chains: dict[str, list[tuple[Recorded, Delivery]]] = {}
        for item, delivery in batch:
            owner = getattr(delivery.data, "user_id", None) or delivery.event.subject
            chains.setdefault(owner, []).append((item, delivery))
        room = asyncio.Semaphore(_WORKERS)

        async def work_through(chain: list[tuple[Recorded, Delivery]]) -> None:
            async with room:
                for item, delivery in chain:
                    await self._handle(item, delivery)

        await asyncio.gather(*(work_through(chain) for chain in chains.values()))
        if self.counts.handled % _DROP_EVERY < len(batch):
            await self._drop_pending()

    async def _handle(self, item: Recorded, delivery: Delivery) -> None:
        event = delivery.event
        self._clock.set(event.time)
        try:
            with acting(Cause(event.correlationid, event.id, self._target.service)):
                for subscription in self._target.handlers(item.subject):
                    await subscription.handle(delivery)
        except UNAVAILABLE_ERRORS:
            raise
        except Exception as error:
            self._fail(item, error)
        else:
            self.counts.handled += 1

    def _fail(self, item: Recorded, error: Exception) -> None:
        self.counts.failed += 1
        if len(self.counts.failures) < MAX_FAILURES_SHOWN:
            self.counts.failures.append(Failure(item.sequence, item.subject, f"{type(error).__name__}: {error}"))

    async def _drop_pending(self) -> None:
        """What the handlers would have said; nobody is to hear it, and it must not pile up."""
        for model in self._target.models:
            query: dict[str, Any] = {f"{PENDING}.id": {"$exists": True}}
            await self._database[model.collection].update_many(query, {"$set": {PENDING: []}})
