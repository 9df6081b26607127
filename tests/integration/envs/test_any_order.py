"""The envs service's stores, for real: what arrives late, twice or in another order ends as it should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.errors import DuplicateKeyError

from libs.common import mongo
from libs.common.contracts.clusters import ClusterState
from libs.common.contracts.environments import EnvironmentStatus
from libs.common.contracts.events import Event
from libs.common.contracts.identity import Plan as Subscription
from libs.common.contracts.users import UserState
from libs.common.ids import new_id
from libs.common.messaging.outbox import PENDING
from libs.common.mongo import Database
from services.envs.plans import Account
from services.envs.repository.accounts import AccountRepository
from services.envs.repository.clusters import ClusterRepository
from services.envs.repository.environments import EnvironmentRepository
from services.envs.service.accounts import AccountService
from services.envs.service.regions import RegionService
from services.envs.settings import EnvsSettings
from tests.fakes.envs import FakeEnvironments
from tests.support.accounts import account_histories, newest
from tests.support.histories import Delivery, Life, Plan, announcements, check_announcements, outcome, plans
from tests.unit.envs.makers import NOW, a_principal, an_environment
from tests.unit.envs.stories import Story, apply, cluster_histories, newest_regions, seen_by_users, stories

# The fixture is one database for all examples; each has a user and an environment of its own in it.
_FEW = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
async def database(make_settings: Callable[..., Any]) -> AsyncIterator[Database]:
    settings = make_settings(EnvsSettings)
    client = mongo.connect(settings)
    yield mongo.database(client, settings, "envs")
    await mongo.close(client)


@pytest.fixture
async def store(database: Database) -> EnvironmentRepository:
    repository = EnvironmentRepository(database, None)
    await repository.create_indexes()
    return repository


@_FEW
@given(plan=plans, random=st.randoms(use_true_random=False))
async def test_reports(database: Database, store: EnvironmentRepository, plan: Plan, random: Random) -> None:
    life = await Life.lived(plan)
    last = await Delivery(life, store, random).run()
    assert outcome(last) == outcome(life.last)
    document = await database["environments"].find_one({"_id": last.id})
    assert document is not None
    told = announcements([Event.model_validate(entry["event"]) for entry in document[PENDING]])
    check_announcements(told, life)


@_FEW
@given(story=stories, random=st.randoms(use_true_random=False))
async def test_delays_and_clusters(store: EnvironmentRepository, story: Story, random: Random) -> None:
    arrivals = [*story.reports, *random.choices(story.reports, k=3)]
    random.shuffle(arrivals)
    expected = await apply(FakeEnvironments(), story.environment, story.reports)
    found = await apply(store, story.environment, arrivals)
    assert seen_by_users(found) == seen_by_users(expected)


@_FEW
@given(history=cluster_histories, random=st.randoms(use_true_random=False))
async def test_clusters(database: Database, history: list[ClusterState], random: Random) -> None:
    await database["clusters"].delete_many({})
    service = RegionService(ClusterRepository(database))
    arrivals = [*history, *random.choices(history, k=4)]
    random.shuffle(arrivals)
    # Replicas handle them at the same time.
    await asyncio.gather(*(service.keep(state) for state in arrivals))
    assert await ClusterRepository(database).regions() == newest_regions(history)


@_FEW
@given(history=account_histories, random=st.randoms(use_true_random=False))
async def test_accounts(database: Database, history: list[UserState], random: Random) -> None:
    service = AccountService(AccountRepository(database))
    arrivals = [*history, *random.choices(history, k=4)]
    random.shuffle(arrivals)
    # Replicas handle them at the same time.
    await asyncio.gather(*(service.keep(state) for state in arrivals))
    assert await service.of(a_principal(user_id=history[0].user_id)) == newest(history)


class _Overtaken(AccountRepository):
    """Between looking for the document and inserting it, another replica inserts `first`: the server then refuses."""

    def __init__(self, database: Database, first: Account) -> None:
        super().__init__(database)
        self._real = self._collection
        self._collection = self  # type: ignore[assignment]
        self._first: Account | None = first

    async def update_one(self, *args: Any, **options: Any) -> Any:
        if self._first is not None:
            first, self._first = self._first, None
            await self.keep(first)
            raise DuplicateKeyError("E11000")
        return await self._real.update_one(*args, **options)


@pytest.mark.parametrize("version", [1, 3])
async def test_a_first_event_that_was_overtaken_is_kept_when_it_is_newer(database: Database, version: int) -> None:
    first = Account(new_id(), Subscription.FREE, is_active=True, is_verified=True, version=2)
    mine = replace(first, plan=Subscription.PRO, version=version)
    await _Overtaken(database, first).keep(mine)
    assert await AccountRepository(database).get(first.user_id) == max(first, mine, key=lambda one: one.version)


async def test_the_last_access_is_the_latest_also_of_what_is_gone(store: EnvironmentRepository) -> None:
    for status in (EnvironmentStatus.RUNNING, EnvironmentStatus.TERMINATED):
        environment = an_environment(status, id=new_id(), user_id=new_id())
        await store.insert(environment, [])
        for minutes in (5, 9, 2):
            await store.touch(environment.id, NOW + timedelta(minutes=minutes))
        found = await store.get(environment.id)
        assert found is not None
        assert found.last_accessed == NOW + timedelta(minutes=9)
