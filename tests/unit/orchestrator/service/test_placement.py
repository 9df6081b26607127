"""Environments are found, placed and told the truth; clusters that come, change and go are watched."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from libs.common.contracts.clusters import ClusterStatus
from libs.common.contracts.events import (
    EnvironmentDeleteRequested,
    EnvironmentStartRequested,
    RuntimeDeleted,
    RuntimeFailed,
    RuntimeProvisioning,
    RuntimeRunning,
)
from services.orchestrator.domain import clusters as domain
from services.orchestrator.domain.clusters import ClusterEdit
from services.orchestrator.service import dispatch
from tests.support.leaping import leaping
from tests.unit.orchestrator.memory import START, FakeClock, MemoryStore, eventually
from tests.unit.orchestrator.memory_clusters import MemoryClusters, a_cluster
from tests.unit.orchestrator.service.replica import Moody, Replica, a_ready_replica, a_wish


class Counting(MemoryStore):
    """`counted`: clusters whose environments were counted, which takes `seconds` by `timer`."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.counted: list[str] = []
        self._seconds = seconds
        self._now = 0.0

    def timer(self) -> float:
        return self._now

    async def count(self, cluster_id: str) -> int:
        self.counted.append(cluster_id)
        self._now += self._seconds
        await asyncio.sleep(0)
        return await super().count(cluster_id)


@pytest.fixture
def clusters() -> MemoryClusters:
    return MemoryClusters()


@pytest.fixture
async def replica(clusters: MemoryClusters, store: MemoryStore, clock: FakeClock) -> Replica:
    return await a_ready_replica(clusters, store, clock)


class TestLocate:
    async def test_a_lost_record_finds_its_workspace_where_it_is(self, replica: Replica) -> None:
        await replica.step(a_wish())
        del replica.store.records["env1"]
        await replica.step(a_wish(region="us", kind=EnvironmentStartRequested, generation=2))
        assert replica.environment().cluster == "a"
        assert replica.runtimes["sealed a"].workspaces["env1"].generation == 2
        assert not replica.runtimes["sealed b"].runs("env1")

    @leaping
    async def test_a_first_wish_waits_for_nobody_a_later_one_does(
        self, clusters: MemoryClusters, store: MemoryStore, clock: FakeClock
    ) -> None:
        replica = await a_ready_replica(clusters, store, clock)
        replica.runtimes["sealed b"].away = True
        replica.runtimes[None].hangs = True
        await replica.step(
            a_wish("new"), a_wish("old", generation=2), a_wish("end", kind=EnvironmentDeleteRequested, generation=2)
        )
        assert replica.store.reported("new") == [RuntimeProvisioning, RuntimeRunning]
        for environment_id in ("old", "end"):
            assert replica.store.reported(environment_id) == []
            assert replica.environment(environment_id).cluster is None
        replica.runtimes["sealed b"].away = replica.runtimes[None].hangs = False
        replica.clock.forward(1)
        await replica.step()
        assert replica.store.reported("old") == [RuntimeProvisioning, RuntimeRunning]
        assert replica.store.reported("end") == [RuntimeDeleted]

    async def test_a_copy_is_found_also_when_another_cluster_is_away(self, replica: Replica) -> None:
        await replica.step(a_wish())
        del replica.store.records["env1"]
        replica.runtimes["sealed b"].away = True
        await replica.step(a_wish(kind=EnvironmentDeleteRequested, generation=2))
        assert replica.store.reported("env1")[-1] is RuntimeDeleted
        assert replica.runtimes["sealed a"].volumes == set()


class TestPlace:
    async def test_only_those_that_may_take_it_are_counted(self, clusters: MemoryClusters, clock: FakeClock) -> None:
        store = Counting()
        for number in range(20):
            clusters.have(a_cluster(f"us{number}", "us", connection_sealed="all"))
        clusters.have(
            a_cluster("a", connection_sealed="all"),
            a_cluster("b", connection_sealed="all"),
            a_cluster("c", connection_sealed="all", status=ClusterStatus.DRAINING),
        )
        replica = Replica(clusters, store, clock, {None: Moody(), "all": Moody()})
        await replica.watch.prepare()
        await replica.step(a_wish("env1"), a_wish("env2"), a_wish("env3", None))
        assert store.counted == ["a", "b", "a", "b"]
        placed = [replica.environment(f"env{number}").cluster for number in (1, 2, 3)]
        assert placed == ["a", "b", "default"]

    async def test_where_counting_takes_its_time_not_every_placement_waits_for_it(
        self, clusters: MemoryClusters, clock: FakeClock
    ) -> None:
        store = Counting(seconds=1.0)
        clusters.have(a_cluster("a", connection_sealed="all"), a_cluster("b", connection_sealed="all"))
        replica = Replica(clusters, store, clock, {None: Moody(), "all": Moody()}, store.timer)
        await replica.watch.prepare()
        wishes = [a_wish(f"env{number}") for number in range(6)]
        await replica.step(*wishes)
        assert sorted(store.counted) == ["a", "b"]
        assert Counter(replica.environment(wish.environment_id).cluster for wish in wishes) == {"a": 3, "b": 3}

    async def test_a_region_that_is_full_has_room_again_after_a_deletion(self, replica: Replica) -> None:
        a = replica.clusters.records["a"]
        replica.clusters.have(domain.edit(a, ClusterEdit(capacity=1), START).cluster)
        await replica.watch.refresh()
        await replica.step(a_wish("env1"), a_wish("env2"))
        assert replica.environment("env2").cluster is None
        await replica.step(a_wish("env1", kind=EnvironmentDeleteRequested, generation=2))
        replica.clock.forward(31)
        await replica.step()
        assert replica.environment("env2").cluster == "a"


class TestRemoved:
    async def test_environments_get_an_honest_error_and_deletions_end_at_once(self, replica: Replica) -> None:
        a = replica.runtimes["sealed a"]
        await replica.step(a_wish("env1"), a_wish("env2"))
        a.away = True
        for _ in range(2):
            await replica.check()
        for _ in range(6):
            replica.clock.forward(31)
            await replica.step(a_wish("env2", kind=EnvironmentDeleteRequested, generation=2))
        there = replica.clusters.records["a"]
        replica.clusters.have(domain.removed(there, replica.clock()).cluster)
        await replica.watch.refresh()
        await replica.step()
        assert replica.store.reported("env1")[-1] is RuntimeFailed
        failed = replica.store.reports[[report.kind for _, report in replica.store.reports].index(RuntimeFailed)][1]
        assert failed.reason == "ClusterRemoved"
        assert replica.store.reported("env2")[-1] is RuntimeDeleted
        assert (a.calls["delete"], a.calls["ensure"]) == (0, 2)


class TestWatching:
    async def test_a_new_cluster_is_watched_a_changed_one_over_its_new_driver_and_nothing_in_between_is_lost(
        self, replica: Replica
    ) -> None:
        old, new = replica.runtimes["sealed a"], Moody()
        await replica.dispatcher.start()
        try:
            await replica.store.accept(a_wish(), None, replica.clock())
            replica.dispatcher.poke("env1")
            await eventually(lambda: replica.store.reported("env1")[-1:] == [RuntimeRunning])
            await eventually(lambda: len(old._watchers) == 1)
            # Other credentials for the same cluster, in which the workspace has ended meanwhile: no watch told.
            new.workspaces, new.volumes = dict(old.workspaces), old.volumes
            new.vanish("env1")
            replica.runtimes |= {"new": new, "sealed c": Moody()}
            replica.clusters.have(replace(replica.clusters.records["a"], connection_sealed="new"), a_cluster("c"))
            await replica.watch.refresh()
            await eventually(lambda: new.runs("env1"))
            await eventually(lambda: len(replica.runtimes["sealed c"]._watchers) == len(new._watchers) == 1)
            assert old._watchers == []
            new.crash("env1")
            await eventually(lambda: new.runs("env1"))
            # What a question in between has taken over is followed too.
            replica.clusters.have(domain.removed(replica.clusters.records["b"], START).cluster)
            await replica.registry.refresh()
            await replica.watch.refresh()
            assert replica.runtimes["sealed b"]._watchers == []
        finally:
            await replica.dispatcher.stop()

    async def test_one_that_is_away_is_not_looked_through_again_and_again(
        self, replica: Replica, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dispatch, "_WATCH_AGAIN_S", 0.001)
        monkeypatch.setattr(dispatch, "_LASTS_S", 3600.0)
        a = replica.runtimes["sealed a"]
        await replica.step(a_wish())
        a.away = True
        looked: list[str | None] = []
        living = replica.store.living

        async def counted(cluster_id: str | None = None) -> Sequence[str]:
            looked.append(cluster_id)
            return await living(cluster_id)

        monkeypatch.setattr(replica.store, "living", counted)
        await replica.dispatcher.start()
        try:
            await eventually(lambda: a.calls["watch"] > 30)
            assert looked == [None]
            monkeypatch.setattr(dispatch, "_LASTS_S", 0.01)
            begun = a.calls["watch"]
            await eventually(lambda: a.calls["watch"] > begun)
            a.away = False
            await eventually(lambda: looked == [None, "a"])
        finally:
            await replica.dispatcher.stop()
