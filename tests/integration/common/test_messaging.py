"""Outbox, durable consumers, retries and dead letters on a real NATS and a real document store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from nats.aio.msg import Msg
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import TraceFlags
from pymongo.errors import ConnectionFailure

from libs.common import mongo
from libs.common.clock import utc_now
from libs.common.context import Cause
from libs.common.contracts.events import Event
from libs.common.contracts.users import UserLocked
from libs.common.errors import PermanentError, TemporaryError
from libs.common.ids import new_id
from libs.common.messaging.broker import ACK_WAIT_S, GRACE_S, Bus
from libs.common.messaging.intake import MAX_AT_WORK
from libs.common.messaging.outbox import PENDING, OutboxRelay, StreamPublisher, pending
from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM
from libs.common.messaging.subscriptions import Delivery, Subscription
from libs.common.settings import CommonSettings
from libs.common.telemetry import spans
from tests.support.app import eventually
from tests.support.servers import Servers

MakeSettings = Callable[..., Any]


def an_event(user_id: str | None = None) -> Event:
    user_id = user_id or new_id()
    data = UserLocked(user_id=user_id, locked_until=utc_now())
    return Event.new(data, subject=user_id, source="auth", cause=Cause())


def with_changes(**changes: Any) -> bytes:
    """An event about user x with something wrong."""
    return json.dumps({**json.loads(an_event("x").model_dump_json()), **changes}).encode()


@pytest.fixture
async def settings(clean_backend: Servers, make_settings: MakeSettings) -> CommonSettings:
    settings: CommonSettings = make_settings(CommonSettings)
    return settings


@asynccontextmanager
async def running_bus(
    settings: CommonSettings, *, handler: Callable[[Event], Any] | None = None, grace_s: float = GRACE_S
) -> AsyncIterator[Bus]:
    bus = Bus(settings, "envs", grace_s=grace_s)
    if handler is not None:

        async def handle(delivery: Delivery) -> None:
            await handler(delivery.event)

        bus.subscribe(Subscription("users", "devpocket.user.*.*", handle))
    await bus.probe()
    await bus.start()
    try:
        yield bus
    finally:
        await bus.stop()


async def publish(bus: Bus, event: Event) -> None:
    await bus.jetstream.publish(event.nats_subject, event.model_dump_json().encode(), stream=EVENTS_STREAM)


async def dead_letters(bus: Bus, count: int) -> list[Msg]:
    subscription = await bus.jetstream.pull_subscribe("dlq.>", stream=DEAD_LETTER_STREAM)
    found: list[Msg] = []
    while len(found) < count:
        found += await subscription.fetch(count - len(found), timeout=30)
    return found


class TestOutbox:
    async def test_events_reach_the_stream_in_order_and_leave_the_document(self, settings: CommonSettings) -> None:
        client = mongo.connect(settings)
        collection = mongo.database(client, settings, "auth")["users"]
        async with running_bus(settings) as bus:
            relay = OutboxRelay(StreamPublisher(bus))
            outbox = relay.attach(collection)
            user_id = new_id()
            events = [an_event(user_id) for _ in range(5)]
            await collection.insert_one({"_id": user_id, PENDING: pending(events)})
            assert await outbox.flush(user_id)
            stored = [await bus.jetstream.get_msg(EVENTS_STREAM, seq) for seq in range(1, 6)]
            assert [Event.model_validate_json(message.data or b"").id for message in stored] == [e.id for e in events]
            document = await collection.find_one({"_id": user_id})
            assert document is not None
            assert document[PENDING] == []
        await mongo.close(client)

    async def test_a_sweep_publishes_what_a_dead_replica_left_and_a_repeat_is_dropped(
        self, settings: CommonSettings
    ) -> None:
        client = mongo.connect(settings)
        collection = mongo.database(client, settings, "auth")["users"]
        async with running_bus(settings) as bus:
            relay = OutboxRelay(StreamPublisher(bus), sweep_interval_s=0.05)
            relay.attach(collection)
            event = an_event()
            await collection.insert_one({"_id": "u", PENDING: pending([event])})
            assert await relay.sweep() == 1
            # A crash between publish and pull leaves the entry behind.
            await collection.update_one({"_id": "u"}, {"$set": {PENDING: pending([event])}})
            assert await relay.sweep() == 1
            assert (await bus.jetstream.stream_info(EVENTS_STREAM)).state.messages == 1
            assert await relay.sweep() == 0
        await mongo.close(client)

    async def test_another_replica_goes_on_with_the_trace_of_the_write(
        self, settings: CommonSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
        monkeypatch.setattr(spans, "tracer", lambda: tracer)
        client = mongo.connect(settings)
        collection = mongo.database(client, settings, "auth")["users"]
        async with running_bus(settings) as bus:
            with tracer.start_as_current_span("POST") as request:
                await collection.insert_one({"_id": "u", PENDING: pending([an_event()])})
            relay = OutboxRelay(StreamPublisher(bus))
            relay.attach(collection)
            assert await relay.sweep() == 1
            headers = (await bus.jetstream.get_msg(EVENTS_STREAM, 1)).headers or {}
        await mongo.close(client)
        _, trace_id, span_id, flags = headers["traceparent"].split("-")
        context = request.get_span_context()
        assert trace_id == f"{context.trace_id:032x}"
        assert int(flags, 16) & TraceFlags.SAMPLED
        # Its own span, of publishing, is the parent of what follows.
        assert span_id != f"{context.span_id:016x}"


class TestDelivery:
    async def test_an_event_is_handled_once_with_its_cause(self, settings: CommonSettings) -> None:
        handled: asyncio.Queue[Event] = asyncio.Queue()
        async with running_bus(settings, handler=handled.put) as bus:
            event = an_event()
            await publish(bus, event)
            assert (await asyncio.wait_for(handled.get(), 30)).id == event.id

    async def test_a_temporary_error_is_retried_after_its_delay(self, settings: CommonSettings) -> None:
        times: list[float] = []
        done = asyncio.Event()

        async def handler(_: Event) -> None:
            times.append(asyncio.get_running_loop().time())
            if len(times) < 3:
                raise TemporaryError("not yet", delay_s=0.2)
            done.set()

        async with running_bus(settings, handler=handler) as bus:
            await publish(bus, an_event())
            await asyncio.wait_for(done.wait(), 60)
        assert times[1] - times[0] >= 0.19
        assert times[2] - times[1] >= 0.19

    async def test_an_outage_of_the_database_uses_up_no_try(self, settings: CommonSettings) -> None:
        tries = 0
        done = asyncio.Event()

        async def handler(_: Event) -> None:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise ConnectionFailure("the database is away")
            done.set()

        async with running_bus(settings, handler=handler) as bus:
            await publish(bus, an_event())
            await asyncio.wait_for(done.wait(), 60)
            consumer = await bus.jetstream.consumer_info(EVENTS_STREAM, "envs-users")
            assert consumer.delivered.consumer_seq == 1

    @pytest.mark.parametrize(
        ("payload", "error_type"),
        [
            (b"\xff\xfe not json", "MalformedEventError"),
            (b"{not json", "MalformedEventError"),
            (b'["a list"]', "MalformedEventError"),
            (b'{"specversion":"1.0","id":"x"}', "MalformedEventError"),
            (b"x" * 1_000_000, "MalformedEventError"),
            (with_changes(type="devpocket.user.exploded.v1"), "UnknownEventError"),
            (with_changes(data={"user_id": "x"}), "UnknownEventError"),
            (with_changes(subject="somebody-else"), "MalformedEventError"),
            (with_changes(data={"user_id": "y", "locked_until": "2026-01-01T00:00:00Z"}), "MalformedEventError"),
        ],
        ids=["bytes", "broken", "list", "fields", "megabyte", "type", "field missing", "subject", "about another"],
    )
    async def test_garbage_goes_to_the_dead_letters_and_blocks_nothing(
        self, settings: CommonSettings, payload: bytes, error_type: str
    ) -> None:
        handled: asyncio.Queue[Event] = asyncio.Queue()
        async with AsyncExitStack() as stack:
            bus = await stack.enter_async_context(running_bus(settings, handler=handled.put))
            await bus.jetstream.publish("devpocket.user.x.locked", payload, stream=EVENTS_STREAM)
            good = an_event()
            await publish(bus, good)
            assert (await asyncio.wait_for(handled.get(), 30)).id == good.id
            (dead,) = await dead_letters(bus, 1)
            assert dead.subject == "dlq.envs.devpocket.user.x.locked"
            assert dead.headers is not None
            assert dead.headers["Devpocket-Error-Type"] == error_type
            assert dead.headers["Devpocket-Original-Sequence"] == "1"
            assert dead.headers["Devpocket-Consumer"] == "envs-users"

    async def test_a_permanent_error_is_dead_at_the_first_try(self, settings: CommonSettings) -> None:
        tries = 0

        async def handler(_: Event) -> None:
            nonlocal tries
            tries += 1
            raise PermanentError("never")

        async with running_bus(settings, handler=handler) as bus:
            event = an_event()
            await publish(bus, event)
            (dead,) = await dead_letters(bus, 1)
            assert dead.headers is not None
            assert dead.headers["Devpocket-Deliveries"] == "1"
            assert Event.model_validate_json(dead.data).id == event.id
        assert tries == 1

    async def test_two_replicas_share_one_consumer(self, settings: CommonSettings) -> None:
        handled: list[str] = []
        enough = asyncio.Event()

        async def handler(event: Event) -> None:
            handled.append(event.id)
            if len(handled) == 100:
                enough.set()

        async with running_bus(settings, handler=handler) as one, running_bus(settings, handler=handler):
            events = [an_event() for _ in range(100)]
            for event in events:
                await publish(one, event)
            await asyncio.wait_for(enough.wait(), 60)
        assert sorted(handled) == sorted(event.id for event in events)


class TestEnd:
    async def test_what_a_replica_has_not_begun_or_not_finished_goes_to_another_one_at_once(
        self, settings: CommonSettings
    ) -> None:
        """It has taken as much as it may, and more has been delivered to it; the ack wait would be longer."""
        events = [an_event() for _ in range(3 * MAX_AT_WORK)]
        begun: set[str] = set()
        handled: set[str] = set()

        async def never_done(event: Event) -> None:
            begun.add(event.id)
            await asyncio.Event().wait()

        async def handle(event: Event) -> None:
            handled.add(event.id)

        async with running_bus(settings, handler=never_done, grace_s=0.1) as first:
            for event in events:
                await publish(first, event)

            async def is_full() -> bool:
                return len(begun) == MAX_AT_WORK

            await eventually(is_full)

        async def all_are() -> bool:
            return handled == {event.id for event in events}

        async with running_bus(settings, handler=handle):
            await eventually(all_are, ACK_WAIT_S / 2)
