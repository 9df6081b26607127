"""Live events for many clients from one consumer per replica.

The consumer starts a little in the past and fills a ring, so that a client which was away for a moment gets what it
missed from memory. One that was away for longer gets it from the stream, up to a limit. Every client has a bounded
queue; one that does not keep up is closed and comes back with its Last-Event-ID, here or to another replica.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Mapping

import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from libs.common.contracts.events import Event
from libs.common.errors import UnavailableError
from libs.common.history.errors import EventsUnavailableError
from libs.common.history.reader import StreamReader
from libs.common.messaging.broker import Bus
from libs.common.messaging.streams import EVENTS_STREAM, EVENTS_SUBJECTS
from libs.common.messaging.subscriptions import IMPORTED_SEQUENCE
from libs.common.tasks import end_tasks
from services.envs.errors import TooManyStreamsError
from services.envs.events.clients import Clients, ClientStream
from services.envs.ports import StoredEvent
from services.envs.service.stories import visible

_RING_EVENTS = 2_048
# About the ring, and five seconds of reading: a client that was away for longer loads everything again.
_MOST_SCANNED = 5_000
# Clients that are served from the stream at the same time; the others wait.
_READERS = 2
MAX_STREAMS_PER_USER = 10
# What concerns environments; events of users and clusters are nobody's business here.
_AGGREGATES = ("devpocket.env.", "devpocket.runtime.", "devpocket.terminal.")
_HEARTBEAT_S = 5.0
_SILENT_AFTER_S = 2.5 * _HEARTBEAT_S
_LOOK_EVERY_S = 0.5
# The consumer of a replica that died must not stay.
_FORGET_AFTER_S = 60.0

log = structlog.get_logger(__name__)


class LiveFeed:
    """Implements LiveEvents. `most_scanned`: how far back the stream is read for one client."""

    def __init__(self, bus: Bus, *, most_scanned: int = _MOST_SCANNED) -> None:
        self._bus = bus
        self._most_scanned = most_scanned
        self._readers = asyncio.Semaphore(_READERS)
        self._clients = Clients()
        self._ring: deque[StoredEvent] = deque(maxlen=_RING_EVENTS)
        self._covered_after = 0
        self._last = 0
        self._live_after = 0
        self._subscription: Subscription | None = None
        self._expected = 1
        self._heard_at = 0.0
        self._lost_one = False
        self._reconnects = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Follow the stream until `stop`. Raises what nats-py raises, or EventsUnavailableError."""
        first, last = await self._reader().bounds(EVENTS_STREAM)
        self._last = max(last - _RING_EVENTS, first - 1, 0)
        self._covered_after = self._last
        self._live_after = last
        await self._follow()
        self._task = asyncio.create_task(self._keep_following())

    async def stop(self) -> None:
        """Close all clients and stop following. The bus takes the subscription with it."""
        self.close_all()
        if self._task is not None:
            await end_tasks([self._task])

    async def open(self, *, user_id: str, session_id: str, sees_all: bool, after: int | None) -> ClientStream:
        """See LiveEvents."""
        if self._task is None:
            raise UnavailableError("Live events are not there yet, please try again in a moment")
        if self._clients.count(user_id) >= MAX_STREAMS_PER_USER:
            raise TooManyStreamsError(MAX_STREAMS_PER_USER)
        begin = max(self._last, self._live_after if after is None else after)
        stream = ClientStream(self.forget, user_id, session_id, sees_all=sees_all, after=begin)
        self._clients.add(stream)
        if after is not None:
            try:
                await self._resume(stream, after)
            except BaseException:
                stream.close()
                raise
        return stream

    def forget(self, stream: ClientStream) -> None:
        """It is closed."""
        self._clients.discard(stream)

    def close_session(self, session_id: str) -> None:
        """The login has ended, and with it what it listens to."""
        for stream in self._clients:
            if stream.session_id == session_id:
                stream.close()

    def close_all(self) -> None:
        """The replica shuts down; clients come back, to another one, with their Last-Event-ID."""
        for stream in self._clients:
            stream.close()

    async def _resume(self, stream: ClientStream, after: int) -> None:
        """Give it what it missed; what comes meanwhile it gets by `offer`."""
        if self._covered_after <= after <= self._last:
            stream.catch_up([event for event in self._ring if event.sequence > after and stream.may_see(event)])
            return
        try:
            whole = await (self._is_ahead_of_us(after) if after > self._last else self._read_past(stream, after))
        except EventsUnavailableError as error:
            log.warning("live events: what a client missed cannot be read", error=str(error))
            whole = False
        if not whole:
            stream.begin_again(after, self._last)

    async def _is_ahead_of_us(self, after: int) -> bool:
        """Whether another replica was faster than this one; if not, the stream was made anew."""
        _, last = await self._reader().bounds(EVENTS_STREAM)
        return after <= last

    async def _read_past(self, stream: ClientStream, after: int) -> bool:
        """False when the stream does not reach back that far, or it is too much to read for one client."""
        until = self._last
        first, _ = await self._reader().bounds(EVENTS_STREAM)
        if after < first - 1 or until - after > self._most_scanned:
            return False
        missed: list[StoredEvent] = []
        async with self._readers:
            past = self._reader().read(EVENTS_STREAM, EVENTS_SUBJECTS, after_sequence=after, until_sequence=until)
            async with contextlib.aclosing(past):
                async for item in past:
                    event = _shown(item.payload, item.headers, item.stored_sequence)
                    if event is not None and stream.may_see(event):
                        missed.append(event)
        stream.catch_up(missed)
        return True

    def _reader(self) -> StreamReader:
        return StreamReader(self._bus.jetstream)

    async def _follow(self) -> None:
        """A new consumer from where the last one ended."""
        if self._subscription is not None:
            with contextlib.suppress(Exception):
                await self._subscription.unsubscribe()
        client = self._bus.client
        reconnects = client.stats["reconnects"]
        inbox = client.new_inbox()
        await self._notice_a_new_stream()
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

    async def _notice_a_new_stream(self) -> None:
        """A stream that ends before what we have seen was made anew, or restored: begin again at its end."""
        _, last = await self._reader().bounds(EVENTS_STREAM)
        if last >= self._last:
            return
        log.warning("live events: the stream was made anew", seen=self._last, last=last)
        seen, self._last, self._covered_after, self._live_after = self._last, last, last, last
        self._ring.clear()
        for stream in self._clients:
            stream.begin_again(seen, last)

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
            event = _shown(message.data, message.headers or {}, sequence.stream)
            if event is not None:
                self._deliver(event)

    def _deliver(self, event: StoredEvent) -> None:
        if len(self._ring) == self._ring.maxlen:
            self._covered_after = self._ring[0].sequence
        self._ring.append(event)
        self._clients.offer(event)


def _shown(payload: bytes, headers: Mapping[str, str], sequence: int) -> StoredEvent | None:
    """The event as users see it; None for what is malformed, none of their business, or history from elsewhere."""
    if IMPORTED_SEQUENCE in headers:
        return None
    try:
        event = Event.model_validate(json.loads(payload))
    except ValueError:
        return None
    return visible(event, sequence) if event.type.startswith(_AGGREGATES) else None
