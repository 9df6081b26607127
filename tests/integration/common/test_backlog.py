"""How much waits: in the outbox, for a consumer, among the dead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nats
from nats.js.api import AckPolicy, ConsumerConfig

from libs.common import mongo
from libs.common.messaging.backlog import ConsumerBacklog, consumer_backlog, dead_letters
from libs.common.messaging.outbox import PENDING, OutboxRelay, pending
from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM, ensure_streams
from libs.common.settings import CommonSettings
from tests.integration.common.test_messaging import an_event
from tests.support.servers import Servers


async def test_the_outbox_tells_how_many_wait_and_which_is_the_oldest(
    backend: Servers, make_settings: Callable[..., Any]
) -> None:
    settings = make_settings(CommonSettings)
    client = mongo.connect(settings)
    relay = OutboxRelay.unheard()
    try:
        database = mongo.database(client, settings, "test")
        collections = [database["ones"], database["others"]]
        for collection in collections:
            relay.attach(collection)
        await relay.start()
        assert (await relay.backlog()).events == 0
        first, *others = [an_event() for _ in range(4)]
        await collections[1].insert_one({"_id": 1, PENDING: pending([first, others[0]])})
        await collections[0].insert_one({"_id": 1, PENDING: pending(others[1:])})
        await collections[0].insert_one({"_id": 2, PENDING: []})
        await collections[0].insert_one({"_id": 3})
        backlog = await relay.backlog()
        assert (backlog.events, backlog.oldest_id) == (4, first.id)
    finally:
        await relay.stop()
        await mongo.close(client)


async def test_consumers_and_dead_letters_of_one_service(
    clean_backend: Servers, make_settings: Callable[..., Any]
) -> None:
    client = await nats.connect(clean_backend.nats_url)
    try:
        js = client.jetstream()
        await ensure_streams(js, make_settings(CommonSettings))
        for number in range(3):
            await js.publish(f"devpocket.user.u{number}.locked", b"{}", stream=EVENTS_STREAM)
            await js.publish(f"dlq.auth.devpocket.user.u{number}.locked", b"{}", stream=DEAD_LETTER_STREAM)
        await js.publish("dlq.envs.devpocket.user.u1.locked", b"{}", stream=DEAD_LETTER_STREAM)
        await js.add_consumer(EVENTS_STREAM, ConsumerConfig(durable_name="auth-audit", ack_policy=AckPolicy.EXPLICIT))
        subscription = await js.pull_subscribe("", durable="auth-audit", stream=EVENTS_STREAM)
        await subscription.fetch(1)
        assert await consumer_backlog(js, ["auth-audit", "auth-nobody"]) == {"auth-audit": ConsumerBacklog(2, 1)}
        assert (await dead_letters(js, "auth"), await dead_letters(js, "envs"), await dead_letters(js, "terminal")) == (
            *(3, 1, 0),
        )
    finally:
        await client.close()
