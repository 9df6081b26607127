"""Live events for many clients from one consumer per replica.

The consumer starts a little in the past and fills a ring, so that a client which was away for a moment gets what it
missed from memory. Every client has a bounded queue; one that does not keep up is closed and comes back with its
Last-Event-ID.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Iterable

import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from libs.common.contracts.events import Event
from libs.common.messaging.broker import Bus
from libs.common.messaging.streams import EVENTS_STREAM, EVENTS_SUBJECTS
from services.envs.errors import TooManyStreamsError
from services.envs.ports import Gap, StoredEvent, StreamClosedError
from services.envs.service.stories import visible

_RING_EVENTS = 2_048
_QUEUE_EVENTS = 256
MAX_STREAMS_PER_USER = 10
# What concerns environments; events of users and clusters are nobody's business here.
_AGGREGATES = ("devpocket.env.", "devpocket.runtime.", "devpocket.terminal.")
_HEARTBEAT_S = 5.0
_SILENT_AFTER_S = 2.5 * _HEARTBEAT_S
_LOOK_EVERY_S = 0.5
# The consumer of a replica that died must not stay.
_FORGET_AFTER_S = 60.0

log = structlog.get_logger(__name__)

Item = StoredEvent | Gap


class ClientStream:
    """Implements LiveStream."""

    def __init__(self, owner: LiveFeed, user_id: str, session_id: str, *, sees_all: bool) -> None:
        self.user_id = user_id
        self.session_id = session_id
        self._sees_all = sees_all
        self._owner = owner
        self._items: deque[Item] = deque()
        self._limit = _QUEUE_EVENTS
        self._changed = asyncio.Event()
        self._closed = False

    def may_see(self, event: StoredEvent) -> bool:
        """Whether the event is about an environment of this user."""
        return self._sees_all or event.user_id == self.user_id

    def catch_up(self, missed: Iterable[Item]) -> None:
        """Queue what it missed, beside the room for what is to come."""
        self._items.extend(missed)
        self._limit += len(self._items)

    def offer(self, event: StoredEvent) -> None:
        """Queue an event, or give the client up when it does not keep up."""
        if len(self._items) >= self._limit:
            log.warning("live events: a client is too slow and is closed", user_id=self.user_id)
            self.close()
            return
        self._items.append(event)
        self._changed.set()

    async def next(self, timeout_s: float) -> Item | None:
        """See LiveStream."""
        if not self._items and not self._closed:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), timeout_s)
        if self._closed:
            raise StreamClosedError
        return self._items.popleft() if self._items else None

    def close(self) -> None:
        """See LiveStream."""
        self._closed = True
        self._changed.set()
        self._owner.forget(self)


class LiveFeed:
    """Implements LiveEvents."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._streams: set[ClientStream] = set()
        self._ring: deque[StoredEvent] = deque(maxlen=_RING_EVENTS)
        self._covered_after = 0
        self._last = 0
        self._subscription: Subscription | None = None
        self._expected = 1
        self._heard_at = 0.0
        self._lost_one = False
        self._reconnects = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Follow the stream until `stop`. Raises what nats-py raises."""
        state = (await self._bus.jetstream.stream_info(EVENTS_STREAM)).state
        self._last = max(state.last_seq - _RING_EVENTS, state.first_seq - 1, 0)
        self._covered_after = self._last
        await self._follow()
        self._task = asyncio.create_task(self._keep_following())

    async def stop(self) -> None:
        """Close all clients and stop following. The bus takes the subscription with it."""
        self.close_all()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def open(self, *, user_id: str, session_id: str, sees_all: bool, after: int | None) -> ClientStream:
        """See LiveEvents."""
        if sum(stream.user_id == user_id for stream in self._streams) >= MAX_STREAMS_PER_USER:
            raise TooManyStreamsError(MAX_STREAMS_PER_USER)
        stream = ClientStream(self, user_id, session_id, sees_all=sees_all)
        if after is not None:
            stream.catch_up(self._missed(stream, after))
        self._streams.add(stream)
        return stream

    def forget(self, stream: ClientStream) -> None:
        """It is closed."""
        self._streams.discard(stream)

    def close_session(self, session_id: str) -> None:
        """The login has ended, and with it what it listens to."""
        for stream in [stream for stream in self._streams if stream.session_id == session_id]:
            stream.close()

    def close_all(self) -> None:
        """The replica shuts down; clients come back, to another one, with their Last-Event-ID."""
        for stream in list(self._streams):
            stream.close()

    def _missed(self, stream: ClientStream, after: int) -> Iterable[Item]:
        if after < self._covered_after or after > self._last:
            yield Gap(seen=after, resumes_after=self._last)
            return
        yield from (event for event in self._ring if event.sequence > after and stream.may_see(event))

    async def _follow(self) -> None:
        """A new consumer from where the last one ended."""
        if self._subscription is not None:
            with contextlib.suppress(Exception):
                await self._subscription.unsubscribe()
        client = self._bus.client
        reconnects = client.stats["reconnects"]
        inbox = client.new_inbox()
        self._expected = 1
        self._heard_at = time.monotonic()
        self._lost_one = False
        self._subscription = await client.subscribe(inbox, cb=self._on_message)
        config = ConsumerConfig(
            deliver_subject=inbox,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self._last + 1,
            filter_subject=EVENTS_SUBJECTS,
            ack_policy=AckPolicy.NONE,
            idle_heartbeat=_HEARTBEAT_S,
            inactive_threshold=_FORGET_AFTER_S,
            mem_storage=True,
        )
        await self._bus.jetstream.add_consumer(EVENTS_STREAM, config)
        self._reconnects = reconnects

    async def _keep_following(self) -> None:
        """A consumer in memory dies with its server, and may die without: its heartbeats say that it lives."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            silent = time.monotonic() - self._heard_at > _SILENT_AFTER_S
            reconnected = self._reconnects != self._bus.client.stats["reconnects"]
            if not (silent or reconnected or self._lost_one) or not self._bus.connected:
                continue
            try:
                await self._follow()
            except Exception as error:
                log.warning("live events: cannot follow the stream, will be retried", error=repr(error))

    async def _on_message(self, message: Msg) -> None:
        self._heard_at = time.monotonic()
        if not message.reply.startswith("$JS.ACK."):
            # A heartbeat of the consumer.
            return
        sequence = message.metadata.sequence
        if self._lost_one or sequence.consumer != self._expected:
            # The watcher begins again after the last one seen.
            self._lost_one = True
            return
        self._expected += 1
        if sequence.stream > self._last:
            self._last = sequence.stream
            self._deliver(message.data, sequence.stream)

    def _deliver(self, payload: bytes, sequence: int) -> None:
        try:
            event = Event.model_validate(json.loads(payload))
        except ValueError:
            return
        if not event.type.startswith(_AGGREGATES):
            return
        stored = visible(event, sequence)
        if len(self._ring) == self._ring.maxlen:
            self._covered_after = self._ring[0].sequence
        self._ring.append(stored)
        for stream in [stream for stream in self._streams if stream.may_see(stored)]:
            stream.offer(stored)
