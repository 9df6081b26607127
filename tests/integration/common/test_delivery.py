"""Redelivery, order, long work, dead processes and servers: what the bus promises, on a real NATS."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import NotFoundError

from libs.common.clock import utc_now
from libs.common.context import Cause, current_cause
from libs.common.contracts.events import Event
from libs.common.contracts.users import UserLocked
from libs.common.errors import TemporaryError
from libs.common.ids import new_id
from libs.common.messaging import delivery as policy
from libs.common.messaging.broker import Bus
from libs.common.messaging.consumers import ConsumerKeeper
from libs.common.messaging.dead_letter import ORIGINAL_SEQUENCE, ORIGINAL_SUBJECT
from libs.common.messaging.delivery import DeliveryPolicy
from libs.common.messaging.fetching import PromptJetStream, PromptSubscription
from libs.common.messaging.redrive import redrive_subject
from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM
from libs.common.messaging.subscriptions import IMPORTED_SEQUENCE, Delivery, Subscription
from libs.common.settings import CommonSettings
from tests.support.app import eventually
from tests.support.servers import LocalServer, Servers, nats_server

Handler = Callable[[Delivery], Any]
_CONSUMER = "envs-users"


def locked(user_id: str | None = None) -> Event:
    user_id = user_id or new_id()
    data = UserLocked(user_id=user_id, locked_until=utc_now())
    return Event.new(data, subject=user_id, source="auth", cause=Cause())


async def publish(bus: Bus, event: Event, headers: dict[str, str] | None = None) -> int:
    payload = event.model_dump_json().encode()
    return (await bus.jetstream.publish(event.nats_subject, payload, stream=EVENTS_STREAM, headers=headers)).seq


async def publish_at_last(bus: Bus, event: Event) -> None:
    """As the outbox does: again until the stream has it."""
    async with asyncio.timeout(30):
        while True:
            try:
                async with asyncio.timeout(1):
                    await publish(bus, event, {"Nats-Msg-Id": event.id})
            except Exception:
                await asyncio.sleep(0.1)
            else:
                return


@asynccontextmanager
async def running(settings: CommonSettings, handler: Handler, *, ack_wait_s: float = 30.0) -> AsyncIterator[Bus]:
    bus = Bus(settings, "envs", ack_wait_s=ack_wait_s)
    bus.subscribe(Subscription("users", "devpocket.user.*.*", handler))
    await bus.probe()
    await bus.start()
    try:
        yield bus
    finally:
        await bus.stop()


@pytest.fixture
async def settings(clean_backend: Servers, make_settings: Callable[..., Any]) -> CommonSettings:
    settings: CommonSettings = make_settings(CommonSettings)
    return settings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalServer]:
    """A NATS that may be hurt."""
    server = nats_server(tmp_path)
    server.start()
    yield server
    server.stop()


async def settled(bus: Bus) -> None:
    """Until the consumer is there and nothing waits for an outcome."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(NotFoundError):
                info = await bus.jetstream.consumer_info(EVENTS_STREAM, _CONSUMER)
                if info.num_pending == 0 and info.num_ack_pending == 0:
                    return
            await asyncio.sleep(0.02)


async def dead_letters(bus: Bus) -> int:
    return (await bus.jetstream.stream_info(DEAD_LETTER_STREAM)).state.messages


class TestOrder:
    async def test_events_of_one_aggregate_are_handled_in_order_and_others_do_not_wait(
        self, settings: CommonSettings
    ) -> None:
        order: list[str] = []
        released = asyncio.Event()

        async def handler(delivery: Delivery) -> None:
            if delivery.event.subject == "slow" and not order.count("slow"):
                await released.wait()
            order.append(delivery.event.subject)
            if delivery.event.subject == "quick":
                released.set()

        async with running(settings, handler) as bus:
            for subject in ("slow", "slow", "quick"):
                await publish(bus, locked(subject))
            await settled(bus)
        assert order == ["quick", "slow", "slow"]


class TestLongWork:
    async def test_work_longer_than_the_ack_wait_is_not_given_to_somebody_else(self, settings: CommonSettings) -> None:
        handled = 0

        async def handler(_: Delivery) -> None:
            nonlocal handled
            handled += 1
            await asyncio.sleep(3.0)

        async with running(settings, handler, ack_wait_s=2.0) as one, running(settings, handler, ack_wait_s=2.0):
            await publish(one, locked())
            await settled(one)
            info = await one.jetstream.consumer_info(EVENTS_STREAM, _CONSUMER)
        assert handled == 1
        assert info.delivered.consumer_seq == 1


class TestFailures:
    async def test_an_expected_failure_has_more_patience_than_an_unexpected_one(self, settings: CommonSettings) -> None:
        tries = 0

        async def handler(_: Delivery) -> None:
            nonlocal tries
            tries += 1
            if tries <= policy.MAX_ABANDONED_DELIVERIES + 2:
                raise TemporaryError("not yet", delay_s=0.02)

        async with running(settings, handler) as bus:
            await publish(bus, locked())
            await settled(bus)
            assert await dead_letters(bus) == 0
        assert tries == policy.MAX_ABANDONED_DELIVERIES + 3

    def test_of_a_batch_that_dies_with_its_process_only_one_message_is_blamed(self) -> None:
        def jetstream() -> Any:
            raise AssertionError("nothing is published")

        rules = DeliveryPolicy("envs", jetstream, ())
        too_often = policy.MAX_ABANDONED_DELIVERIES + 1
        assert not rules.condemns("users", 7, policy.MAX_ABANDONED_DELIVERIES)
        assert rules.condemns("users", 7, too_often)
        assert not rules.condemns("users", 8, too_often)

    def test_a_message_that_the_process_has_survived_is_not_blamed(self) -> None:
        def jetstream() -> Any:
            raise AssertionError("nothing is published")

        rules = DeliveryPolicy("envs", jetstream, ())
        rules.survived("users", 7)
        too_often = policy.MAX_ABANDONED_DELIVERIES + 1
        assert not rules.condemns("users", 7, too_often)
        assert rules.condemns("users", 8, too_often)


class TestImportedHistory:
    async def test_is_acknowledged_and_not_acted_upon(self, settings: CommonSettings) -> None:
        handled: list[str] = []

        async def handler(delivery: Delivery) -> None:
            handled.append(delivery.event.id)

        async with running(settings, handler) as bus:
            await publish(bus, locked(), {IMPORTED_SEQUENCE: "7"})
            live = locked()
            await publish(bus, live)
            await settled(bus)
        assert handled == [live.id]


class TestRedrive:
    async def test_goes_through_the_handler_with_its_original_place_and_cause(self, settings: CommonSettings) -> None:
        seen: list[tuple[int, str | None]] = []

        async def handler(delivery: Delivery) -> None:
            seen.append((delivery.sequence, current_cause().causation_id))

        async with running(settings, handler) as bus:
            event = locked()
            headers = {ORIGINAL_SUBJECT: event.nats_subject, ORIGINAL_SEQUENCE: "41"}
            payload = event.model_dump_json().encode()
            answer = await bus.client.request(redrive_subject(_CONSUMER), payload, headers=headers, timeout=30)
            assert json.loads(answer.data) == {"ok": True}
        assert seen == [(41, event.id)]

    async def test_says_why_it_failed_again(self, settings: CommonSettings) -> None:
        async def handler(_: Delivery) -> None:
            raise RuntimeError("still\nbroken")

        async with running(settings, handler) as bus:
            event = locked()
            headers = {ORIGINAL_SUBJECT: event.nats_subject, ORIGINAL_SEQUENCE: "1"}
            for payload, error_type, message in (
                (event.model_dump_json().encode(), "RuntimeError", "still broken"),
                (b"{", "MalformedEventError", "not JSON: EOF while parsing an object at line 1 column 1"),
            ):
                answer = await bus.client.request(redrive_subject(_CONSUMER), payload, headers=headers, timeout=30)
                assert json.loads(answer.data) == {"ok": False, "error_type": error_type, "message": message}


class TestServerGone:
    async def test_a_consumer_recovers_from_crashes_of_the_server(
        self, server: LocalServer, make_settings: Callable[..., Any]
    ) -> None:
        settings = make_settings(CommonSettings, nats_url=f"nats://127.0.0.1:{server.port}")
        handled: asyncio.Queue[str] = asyncio.Queue()

        async def handler(delivery: Delivery) -> None:
            await handled.put(delivery.event.id)

        async with running(settings, handler) as bus:
            for _ in range(2):
                server.kill()
                server.start()
                event = locked()
                await publish_at_last(bus, event)
                async with asyncio.timeout(60):
                    while await handled.get() != event.id:
                        continue

    async def test_a_consumer_that_the_server_has_lost_is_made_again(self, settings: CommonSettings) -> None:
        async def handler(_: Delivery) -> None:
            return

        async with running(settings, handler) as bus:
            before = (await bus.jetstream.consumer_info(EVENTS_STREAM, _CONSUMER)).config
            keeper = ConsumerKeeper(settings, look_every_s=0.05)
            keeper.add(_CONSUMER, "devpocket.user.*.*", replace(before, durable_name=None, filter_subject=None))
            keeper.start(bus.jetstream)
            try:
                await bus.jetstream.delete_consumer(EVENTS_STREAM, _CONSUMER)
                await publish(bus, locked())
                await settled(bus)
            finally:
                await keeper.stop()
            after = (await bus.jetstream.consumer_info(EVENTS_STREAM, _CONSUMER)).config
            assert (after.filter_subject, after.ack_wait, after.max_deliver) == (
                before.filter_subject, before.ack_wait, before.max_deliver,
            )  # fmt: skip


class TestFetching:
    async def test_what_arrives_while_it_is_asked_for_is_not_waited_for(self) -> None:
        class Quick:
            """A server whose answer is there before `publish` returns."""

            stats: ClassVar = {"reconnects": 0}

            async def publish(self, _subject: str, _payload: bytes, reply: str) -> None:
                await subscription._on_message(Msg(cast("Any", None), subject="s", reply="$JS.ACK.x", data=b"1"))

        subscription = PromptSubscription(cast("Any", Quick()), "S", "c", "inbox")
        async with asyncio.timeout(30):
            (message,) = await subscription.fetch(64, timeout=600)
        assert message.data == b"1"

    async def test_after_a_reconnect_it_is_asked_for_again_at_once(
        self, server: LocalServer, make_settings: Callable[..., Any]
    ) -> None:
        settings = make_settings(CommonSettings, nats_url=f"nats://127.0.0.1:{server.port}")

        async def handler(_: Delivery) -> None:
            return

        async with running(settings, handler) as bus:
            prompt = PromptJetStream(bus.client)
            subscription = await prompt.pull_subscribe("devpocket.user.*.*", durable="prompt", stream=EVENTS_STREAM)
            waiting = asyncio.create_task(subscription.fetch(64, timeout=600))

            async def is_asked_for() -> bool:
                return bool((await bus.jetstream.consumer_info(EVENTS_STREAM, "prompt")).num_waiting)

            await eventually(is_asked_for)
            reconnects = bus.client.stats["reconnects"]
            server.kill()
            server.start()
            event = locked()
            await publish_at_last(bus, event)
            assert bus.client.stats["reconnects"] > reconnects
            prompt.reconnected()
            async with asyncio.timeout(30):
                (message,) = await waiting
            assert Event.model_validate_json(message.data).id == event.id

    async def test_a_message_is_handed_out_when_it_comes_not_when_the_batch_is_full_or_the_time_over(
        self, settings: CommonSettings
    ) -> None:
        async def handler(_: Delivery) -> None:
            return

        async with running(settings, handler) as bus:
            prompt = PromptJetStream(bus.client)
            subscription = await prompt.pull_subscribe("devpocket.user.*.*", durable="prompt", stream=EVENTS_STREAM)
            waiting = asyncio.create_task(subscription.fetch(64, timeout=600))
            for _ in range(3):
                event = locked()
                await publish(bus, event)
                async with asyncio.timeout(30):
                    (message,) = await waiting
                assert Event.model_validate_json(message.data).id == event.id
                waiting = asyncio.create_task(subscription.fetch(64, timeout=600))
            waiting.cancel()
            await subscription.unsubscribe()

    async def test_nothing_there_is_a_timeout_and_the_next_message_is_not_lost(self, settings: CommonSettings) -> None:
        async def handler(_: Delivery) -> None:
            return

        async with running(settings, handler) as bus:
            prompt = PromptJetStream(bus.client)
            subscription = await prompt.pull_subscribe("devpocket.user.*.*", durable="prompt", stream=EVENTS_STREAM)
            for _ in range(3):
                with pytest.raises(NatsTimeoutError):
                    await subscription.fetch(2, timeout=0.05)
                events = [locked(), locked(), locked()]
                for event in events:
                    await publish(bus, event)
                found: list[Any] = []
                async with asyncio.timeout(30):
                    while len(found) < len(events):
                        found += await subscription.fetch(2, timeout=600)
                assert [Event.model_validate_json(message.data).id for message in found] == [e.id for e in events]
            await subscription.unsubscribe()
