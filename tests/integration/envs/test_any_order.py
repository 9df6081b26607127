"""The envs service's stores, for real: what arrives late, twice or in another order ends as it should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common import mongo
from libs.common.contracts.clusters import ClusterState
from libs.common.contracts.environments import EnvironmentStatus
from libs.common.contracts.events import Event, RuntimeDeleted
from libs.common.contracts.users import OwnerEmptied, UserState
from libs.common.ids import new_id
from libs.common.messaging.outbox import PENDING
from libs.common.mongo import Database
from libs.common.security.identities import Identities
from services.envs.allowance import verdicts
from services.envs.repository.accounts import AccountRepository
from services.envs.repository.clusters import ClusterRepository
from services.envs.repository.departures import DepartureRepository
from services.envs.repository.environments import EnvironmentRepository
from services.envs.service.accounts import AccountService
from services.envs.service.owners import OwnerService
from services.envs.service.regions import RegionService
from services.envs.service.reports import ReportService
from services.envs.settings import EnvsSettings
from tests.fakes.envs import FakeEnvironments
from tests.support.accounts import account_histories, newest
from tests.support.histories import Delivery, Life, Plan, announcements, check_announcements, outcome, plans
from tests.unit.envs.makers import NOW, an_environment
from tests.unit.envs.stories import Story, apply, cluster_histories, newest_regions, seen_by_users, stories

# The fixture is one database for all examples; each has a user and an environment of its own in it.
_FEW = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


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
    identities = Identities(database)
    arrivals = [*history, *random.choices(history, k=4)]
    random.shuffle(arrivals)
    # Replicas handle them at the same time.
    await asyncio.gather(*(identities.apply(state) for state in arrivals))
    assert await AccountRepository(database).get(history[0].user_id) == newest(history)


@_FEW
@given(history=account_histories, number=st.integers(0, 4), random=st.randoms(use_true_random=False))
async def test_owners(
    database: Database, store: EnvironmentRepository, history: list[UserState], number: int, random: Random
) -> None:
    """Replicas act upon events of an account and reports of its workspaces at the same time, and again."""
    user_id = history[0].user_id
    identities = Identities(database)
    accounts = AccountService(AccountRepository(database))
    owners = OwnerService(store, accounts, DepartureRepository(database, None), lambda: NOW)
    reports = ReportService(store, lambda: NOW, owners)
    for slot in range(number):
        await store.insert(an_environment(id=new_id(), user_id=user_id, name=f"e{slot}", slot=slot), [])

    async def take(state: UserState) -> None:
        await identities.apply(state)
        await owners.account_told(state)

    async def report_gone(environment_id: str) -> None:
        found = await store.get(environment_id)
        assert found is not None
        report = RuntimeDeleted(environment_id=found.id, user_id=user_id, generation=found.generation, runtime="local")
        await reports.apply(report, 9)

    owned = [one.id for one in await store.occupants(user_id)]
    work = [partial(take, state) for state in (*history, *random.choices(history, k=2))]
    work += [partial(report_gone, environment_id) for environment_id in (*owned, *owned)]
    random.shuffle(work)
    for group in (work, [partial(report_gone, environment_id) for environment_id in owned]):
        await asyncio.gather(*(job() for job in group))
    account = newest(history)
    assert verdicts(account, await store.occupants(user_id)) == []
    document = await database["users"].find_one({"_id": user_id})
    assert document is not None
    told = [Event.model_validate(entry["event"]).payload() for entry in document.get(PENDING, [])]
    assert told == ([OwnerEmptied(user_id=user_id, environments=number)] if account.is_deleted else [])


async def test_the_last_access_is_the_latest_also_of_what_is_gone(store: EnvironmentRepository) -> None:
    for status in (EnvironmentStatus.RUNNING, EnvironmentStatus.TERMINATED):
        environment = an_environment(status, id=new_id(), user_id=new_id())
        await store.insert(environment, [])
        for minutes in (5, 9, 2):
            await store.touch(environment.id, NOW + timedelta(minutes=minutes))
        found = await store.get(environment.id)
        assert found is not None
        assert found.last_accessed == NOW + timedelta(minutes=9)
