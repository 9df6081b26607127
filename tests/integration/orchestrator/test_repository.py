"""Environments in a real document store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from libs.common import mongo
from libs.common.contracts.events import EnvironmentDeleteRequested, EnvironmentStartRequested, EnvironmentStopRequested
from libs.common.messaging.broker import Bus
from libs.common.messaging.outbox import OutboxRelay, StreamPublisher
from services.orchestrator.domain import steps
from services.orchestrator.domain.model import Said, Trouble
from services.orchestrator.repository import COLLECTION, MongoEnvironments
from services.orchestrator.settings import OrchestratorSettings
from tests.support.finds import WatchedFinds
from tests.support.servers import Servers
from tests.unit.orchestrator.memory import START, wish
from tests.unit.orchestrator.store_contract import CAUSE, LIMITS, StoreContract, take


@pytest.fixture
async def collection(backend: Servers, make_settings: Callable[..., Any]) -> AsyncIterator[mongo.Collection]:
    settings = make_settings(OrchestratorSettings)
    client = mongo.connect(settings)
    yield mongo.database(client, settings, "orchestrator")[COLLECTION]
    await mongo.close(client)


@pytest.fixture
async def store(collection: mongo.Collection, make_settings: Callable[..., Any]) -> MongoEnvironments:
    # The bus is never started: events stay in their documents.
    bus = Bus(make_settings(OrchestratorSettings), "orchestrator")
    outbox = OutboxRelay(StreamPublisher(bus)).attach(collection)
    store = MongoEnvironments(collection, outbox, tombstone_life=timedelta(days=31))
    await store.create_indexes()
    return store


class TestMongoEnvironments(StoreContract):
    async def test_replicas_that_insert_at_once_keep_the_newest_wish(self, store: MongoEnvironments) -> None:
        wishes = [wish(EnvironmentStartRequested, generation=number) for number in range(1, 21)]
        await asyncio.gather(*(store.accept(each, CAUSE, START) for each in wishes))
        assert (await take(store)).generation == 20

    async def test_replicas_that_take_a_lease_at_once_get_it_once(self, store: MongoEnvironments) -> None:
        await store.accept(wish(), CAUSE, START)
        until = START + timedelta(seconds=15)
        taken = await asyncio.gather(
            *(store.acquire("env1", f"holder{number}", START, until, only_if_due=True) for number in range(20))
        )
        assert len([environment for environment in taken if environment is not None]) == 1

    async def test_workspaces_are_counted_by_report_and_failures_by_reason(self, store: MongoEnvironments) -> None:
        trouble = Trouble("ImagePullBackOff", "No such image.", final=True)
        for number in range(3):
            await store.accept(wish(environment_id=f"env{number}"), CAUSE, START)
        for number in range(2):
            until = START + timedelta(seconds=15)
            taken = await store.acquire(f"env{number}", "a", START, until, only_if_due=True)
            assert taken is not None
            change = steps.announce(taken, START, LIMITS)
            if number:
                change = steps.setback(taken, trouble, began=START, now=START, limits=LIMITS)
            await store.save("a", change, START, "local")
        counts = await store.count_by_report()
        assert {said: count for said, count in counts.items() if count} == {
            Said.NOTHING: 1,
            Said.PROVISIONING: 1,
            Said.FAILED: 1,
        }
        assert Said.DELETED not in counts
        assert await store.count_failed() == {"ImagePullBackOff": 1}

    async def test_state_and_event_are_one_write(self, store: MongoEnvironments, collection: mongo.Collection) -> None:
        await store.accept(wish(), CAUSE, START)
        await store.save("a", steps.announce(await take(store), START, LIMITS), START, "local")
        document = await collection.find_one({"_id": "env1"})
        assert document is not None
        assert document["observed"]["said"] == "provisioning"
        (pending,) = document["pending_events"]
        assert pending["subject"] == "devpocket.runtime.env1.provisioning"
        assert pending["event"]["correlationid"] == "request-1"
        assert pending["event"]["causationid"] == "event-1"
        assert pending["event"]["actor"] == "orchestrator"
        assert pending["event"]["data"]["runtime"] == "local"

    async def test_a_tombstone_expires(self, store: MongoEnvironments, collection: mongo.Collection) -> None:
        await store.accept(wish(EnvironmentDeleteRequested), CAUSE, START)
        await store.save("a", steps.deleted(await take(store), START, LIMITS), START, "local")
        document = await collection.find_one({"_id": "env1"})
        assert document is not None
        assert document["expires_at"] == START + timedelta(days=31)
        indexes = await collection.index_information()
        assert indexes["tombstones"]["expireAfterSeconds"] == 0

    async def test_a_look_for_samples_reads_no_environment_that_needs_none(
        self, store: MongoEnvironments, collection: mongo.Collection
    ) -> None:
        await store.accept(wish(), CAUSE, START)
        await store.save("a", steps.confirm(await take(store), START, LIMITS), START, "local")
        document = await collection.find_one({"_id": "env1"})
        assert document is not None
        await collection.insert_many(
            [{**document, "_id": f"copy{number}", "sampled_at": START} for number in range(50)]
        )
        watched = WatchedFinds(collection)
        outbox = OutboxRelay.unheard().attach(watched.collection)
        looking = MongoEnvironments(watched.collection, outbox, tombstone_life=timedelta(days=31))
        assert [found.id for found in await looking.unsampled(START - timedelta(seconds=5), 10)] == ["env1"]
        assert await watched.documents_read() <= 1

    async def test_what_an_older_version_left_to_be_sampled_is_passed_over_once(
        self, store: MongoEnvironments, collection: mongo.Collection
    ) -> None:
        await store.accept(wish(EnvironmentStopRequested), CAUSE, START)
        await store.save("a", steps.stopped(await take(store), START, LIMITS), START, "local")
        await collection.update_one({"_id": "env1"}, {"$set": {"sampled_at": START}})
        assert await store.unsampled(START, 10) == []
        document = await collection.find_one({"_id": "env1"})
        assert document is not None
        assert document["sampled_at"] is None

    async def test_many_are_looked_up_a_thousand_at_a_time(
        self, store: MongoEnvironments, collection: mongo.Collection
    ) -> None:
        await store.accept(wish(), CAUSE, START)
        watched = WatchedFinds(collection)
        outbox = OutboxRelay.unheard().attach(watched.collection)
        looking = MongoEnvironments(watched.collection, outbox, tombstone_life=timedelta(days=31))
        ids = [*(f"other{number}" for number in range(1_500)), "env1"]
        assert await looking.buried(ids) == {"env1": False}
        assert [len(query["_id"]["$in"]) for query in watched.queries] == [1_000, 501]
