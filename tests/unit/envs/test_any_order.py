"""Whatever happens to events on their way to envs, it ends as if each had come once and in order."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.clusters import ClusterState
from libs.common.contracts.environments import EnvironmentStatus
from libs.common.contracts.events import RuntimeDeleted
from libs.common.contracts.users import OwnerEmptied, UserState
from libs.common.ids import new_id
from services.envs.allowance import verdicts
from services.envs.entities import Environment
from services.envs.service.accounts import AccountService
from services.envs.service.owners import OwnerService
from services.envs.service.regions import RegionService
from services.envs.service.reports import ReportService
from tests.fakes.envs import FakeAccounts, FakeClusters, FakeDepartures, FakeEnvironments
from tests.support.accounts import account_histories, newest
from tests.support.histories import (
    Delivery,
    Life,
    Plan,
    announcements,
    check_announcements,
    outcome,
    plans,
)
from tests.unit.envs.makers import NOW, an_environment
from tests.unit.envs.stories import Story, apply, cluster_histories, newest_regions, seen_by_users, stories


class TestReports:
    @settings(deadline=None, max_examples=300)
    @given(plan=plans, random=st.randoms(use_true_random=False))
    async def test_the_end_is_the_same(self, plan: Plan, random: Random) -> None:
        life = await Life.lived(plan)
        store = FakeEnvironments()
        last = await Delivery(life, store, random).run()
        assert outcome(last) == outcome(life.last)
        check_announcements(announcements(store.events), life)

    @settings(deadline=None, max_examples=100)
    @given(plan=plans)
    async def test_in_order_the_story_is_whole(self, plan: Plan) -> None:
        """The reference itself: an answered wish shows, and the announcements follow each other."""
        life = await Life.lived(plan)
        told = announcements(life.envs.events)
        check_announcements(told, life)
        assert life.last.status is (told[-1].status if told else life.first.status)
        assert life.last.generation == life.wishes[-1].generation

    @settings(deadline=None, max_examples=400)
    @given(story=stories, random=st.randoms(use_true_random=False))
    async def test_delays_and_clusters_in_any_order_and_repeated(self, story: Story, random: Random) -> None:
        """A delay never hides the report that came before it, and what is shown is what was said last."""
        in_order, shuffled = FakeEnvironments(), FakeEnvironments()
        arrivals = [*story.reports, *random.choices(story.reports, k=3)]
        random.shuffle(arrivals)
        expected = await apply(in_order, story.environment, story.reports)
        found = await apply(shuffled, story.environment, arrivals)
        assert seen_by_users(found) == seen_by_users(expected)
        told = announcements(shuffled.events)
        assert all(before.status is after.previous for before, after in pairwise(told))
        if told:
            last = told[-1]
            assert (last.status, last.status_reason) == (found.status, found.status_reason)


class TestTerminals:
    @settings(deadline=None)
    @given(minutes=st.lists(st.integers(0, 100), min_size=1, max_size=8))
    async def test_the_last_access_is_the_latest_also_of_what_is_gone(self, minutes: list[int]) -> None:
        for environment in (an_environment(), an_environment(EnvironmentStatus.TERMINATED)):
            store = FakeEnvironments()
            store.found[environment.id] = environment
            for minute in minutes:
                await ReportService(store).opened_terminal(environment.id, NOW + timedelta(minutes=minute))
            assert store.found[environment.id].last_accessed == NOW + timedelta(minutes=max(minutes))


class TestAccounts:
    @settings(deadline=None, max_examples=200)
    @given(history=account_histories, number=st.integers(0, 5), random=st.randoms(use_true_random=False))
    async def test_the_newest_state_rules(self, history: list[UserState], number: int, random: Random) -> None:
        """Also among reports that the workspaces are gone; and the end of a deleted user is told once, in the end."""
        user_id = history[0].user_id
        owned = [an_environment(id=new_id(), user_id=user_id, name=f"e{i}", slot=i) for i in range(number)]
        store = FakeEnvironments()
        store.found = {environment.id: environment for environment in owned}
        accounts = FakeAccounts()
        departures = FakeDepartures(accounts)
        owners = OwnerService(store, AccountService(accounts), departures, lambda: NOW)
        reports = ReportService(store, lambda: NOW, owners)

        arrivals: list[UserState | Environment] = [*history, *random.choices(history, k=4), *owned, *owned]
        random.shuffle(arrivals)
        for arrival in [*arrivals, *owned]:
            if isinstance(arrival, Environment):
                await reports.apply(_gone(store.found[arrival.id]), 9)
            else:
                await accounts.take(arrival)
                await owners.account_told(arrival)
            assert not departures.events or not await store.places(user_id)
        account = newest(history)
        assert accounts.found[user_id] == account
        assert verdicts(account, await store.occupants(user_id)) == []
        told = [event.payload() for event in departures.events]
        assert told == ([OwnerEmptied(user_id=user_id, environments=number)] if account.is_deleted else [])


def _gone(environment: Environment) -> RuntimeDeleted:
    """What the orchestrator says of the newest wish, which counts only if that was to delete."""
    return RuntimeDeleted(
        environment_id=environment.id, user_id=environment.user_id, generation=environment.generation, runtime="local"
    )


class TestClusters:
    @settings(deadline=None)
    @given(history=cluster_histories, random=st.randoms(use_true_random=False))
    async def test_the_newest_state_stays(self, history: list[ClusterState], random: Random) -> None:
        store = FakeClusters()
        service = RegionService(store)
        arrivals = [*history, *random.choices(history, k=4)]
        random.shuffle(arrivals)
        for state in arrivals:
            await service.keep(state)
        assert await store.regions() == newest_regions(history)
