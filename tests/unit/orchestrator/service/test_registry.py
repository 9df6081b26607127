"""What one replica knows of the clusters, and what it does when one goes away and comes back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from libs.common.contracts.clusters import ClusterHealth
from libs.common.contracts.events import (
    RuntimeDelayed,
    RuntimeProvisioning,
    RuntimeRunning,
)
from libs.runtime.port import RuntimeUnavailableError
from services.orchestrator.domain import clusters as domain
from services.orchestrator.service.registry import DefaultCluster
from tests.support.leaping import leaping
from tests.unit.orchestrator.memory import START, FakeClock, MemoryStore
from tests.unit.orchestrator.memory_clusters import MemoryClusters, a_cluster
from tests.unit.orchestrator.service.replica import Moody, Replica, a_ready_replica, a_wish

UNREACHABLE, HEALTHY = ClusterHealth.UNREACHABLE, ClusterHealth.HEALTHY


@pytest.fixture
def clusters() -> MemoryClusters:
    return MemoryClusters()


@pytest.fixture
async def replica(clusters: MemoryClusters, store: MemoryStore, clock: FakeClock) -> Replica:
    return await a_ready_replica(clusters, store, clock)


class TestKnown:
    async def test_the_one_of_the_settings_declares_itself_and_what_changed(self, replica: Replica) -> None:
        there = replica.clusters.records["default"]
        assert (there.region, there.runtime, there.health) == ("home", "local", HEALTHY)
        assert replica.clusters.told("default") == ["registered", "health_changed"]
        replica.registry._default = DefaultCluster("here", "kubernetes")
        for _ in range(2):
            await replica.registry.declare_default()
        there = replica.clusters.records["default"]
        assert (there.region, there.runtime, there.version) == ("here", "kubernetes", 3)
        assert replica.clusters.events[-1].is_default

    async def test_it_does_not_call_itself_the_default_when_another_is(
        self, clusters: MemoryClusters, store: MemoryStore, clock: FakeClock
    ) -> None:
        clusters.have(a_cluster("a", default_since=START))
        await Replica(clusters, store, clock, {None: Moody(), "sealed a": Moody()}).watch.prepare()
        assert [event.is_default for event in clusters.events if event.cluster_id == "default"] == [False, False]

    async def test_the_fleet_follows_the_store(self, replica: Replica) -> None:
        clusters, fleet, registry = replica.clusters, replica.fleet, replica.registry
        assert sorted(fleet.ids()) == ["a", "b", "default"]
        assert registry.news() == []
        replica.runtimes |= {"new": Moody(), "sealed c": Moody()}
        clusters.have(a_cluster("c"), replace(clusters.records["a"], connection_sealed="new"))
        clusters.have(domain.removed(clusters.records["b"], START).cluster)
        await registry.refresh()
        await registry.refresh()
        assert sorted(registry.news()) == ["a", "b", "c"]
        assert registry.news() == []
        assert sorted(fleet.ids()) == ["a", "c", "default"]
        assert [cluster.id for cluster in registry.clusters] == ["a", "c", "default"]
        assert (registry.runtime_of("c"), registry.runtime_of(None)) == ("kubernetes", "local")

    async def test_one_that_cannot_be_read_is_away_and_the_others_work(self, replica: Replica) -> None:
        replica.clusters.have(a_cluster("0", connection_sealed="unreadable", health=ClusterHealth.UNKNOWN))
        replica.runtimes["sealed c"] = Moody()
        replica.clusters.have(a_cluster("c"))
        await replica.watch.refresh()
        await replica.check()
        assert replica.clusters.records["0"].health is UNREACHABLE
        assert "another SECRET_KEY" in (replica.clusters.records["0"].message or "")
        assert await replica.fleet.check("c") == "v1.36.1"

    async def test_fifty_are_looked_at_without_making_one_anew(self, replica: Replica) -> None:
        for number in range(50):
            replica.runtimes[f"sealed c{number}"] = Moody()
            replica.clusters.have(a_cluster(f"c{number}"))
        await replica.registry.refresh()
        assert len(replica.registry.news()) == 50
        replica.runtimes.clear()  # another driver could not be made now
        await replica.registry.refresh()
        assert replica.registry.news() == []
        assert len(replica.fleet.ids()) == 53


class TestAway:
    async def test_its_environments_are_delayed_those_elsewhere_go_on_and_recovery_wakes_them(
        self, replica: Replica
    ) -> None:
        a = replica.runtimes["sealed a"]
        await replica.step(a_wish("env1"), a_wish("env2", "us"))
        a.away = True
        for _ in range(4):
            await replica.check()
        assert replica.clusters.told("a") == ["health_changed"]
        assert replica.clusters.events[-1].message == "It went fishing."
        asked = a.calls.total()
        for _ in range(7):
            replica.clock.forward(31)
            await replica.step(a_wish("env3", "us"), a_wish("env4"))
        assert a.calls.total() == asked
        assert replica.store.reported("env1") == [RuntimeProvisioning, RuntimeRunning, RuntimeDelayed]
        report = next(report for _, report in replica.store.reports if report.kind is RuntimeDelayed)
        assert report.reason == "ClusterUnreachable"
        assert report.message is not None
        assert "fishing" in report.message
        assert replica.store.reported("env3") == [RuntimeProvisioning, RuntimeRunning]
        assert replica.store.reported("env2") == [RuntimeProvisioning, RuntimeRunning]
        assert replica.environment("env4").cluster is None
        replica.clock.forward(10)
        assert {"env1", "env4"}.isdisjoint(await replica.store.due(replica.clock(), 10))
        a.away = False
        await replica.watch.check()
        assert "env1" in await replica.store.due(replica.clock(), 10)
        await replica.watch.refresh()
        assert "env4" in await replica.store.due(replica.clock(), 10)
        await replica.step()
        assert replica.environment("env4").cluster == "a"
        assert replica.store.reported("env1")[-1] is RuntimeRunning
        assert replica.clusters.told("a") == ["health_changed", "health_changed"]

    async def test_what_another_replica_tried_in_vain_is_woken_when_it_hears_of_the_recovery(
        self, replica: Replica
    ) -> None:
        other = Replica(replica.clusters, replica.store, replica.clock, replica.runtimes)
        await other.watch.prepare()
        await replica.step(a_wish())
        replica.runtimes["sealed a"].away = True
        for _ in range(2):
            await replica.check()
        await other.watch.refresh()
        replica.clock.forward(31)
        await replica.step()
        replica.runtimes["sealed a"].away = False
        replica.clock.forward(10)
        await replica.watch.check()
        # The other one is quicker, and does not know yet.
        await other.step()
        assert list(await other.store.due(other.clock(), 10)) == []
        await other.watch.refresh()
        assert list(await other.store.due(other.clock(), 10)) == ["env1"]

    @leaping
    async def test_one_that_hangs_is_away_and_the_others_are_checked(
        self, clusters: MemoryClusters, store: MemoryStore, clock: FakeClock
    ) -> None:
        replica = await a_ready_replica(clusters, store, clock)
        replica.runtimes["sealed a"].hangs = True
        replica.runtimes["sealed b"].away = True
        for _ in range(2):
            await replica.check()
        health = {name: cluster.health for name, cluster in replica.clusters.records.items()}
        assert health == {"a": UNREACHABLE, "b": UNREACHABLE, "default": HEALTHY}
        assert "no answer within" in (replica.clusters.records["a"].message or "")

    async def test_each_is_checked_by_one_replica(self, replica: Replica) -> None:
        other = Replica(replica.clusters, replica.store, replica.clock, replica.runtimes)
        await other.watch.prepare()
        asked = replica.runtimes["sealed a"].calls["check"]
        replica.clock.forward(10)
        await asyncio.gather(replica.watch.check(), other.watch.check())
        assert replica.runtimes["sealed a"].calls["check"] == asked + 1

    async def test_a_bug_of_a_driver_is_an_outage_of_one_cluster(
        self, replica: Replica, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def buggy() -> str:
            raise KeyError("a bug")

        monkeypatch.setattr(replica.runtimes["sealed a"], "check", buggy)
        for _ in range(2):
            await replica.check()
        assert replica.clusters.records["a"].health is UNREACHABLE
        assert replica.clusters.records["b"].health is HEALTHY

    async def test_asking_keeps_nothing(self, replica: Replica) -> None:
        replica.runtimes["sealed a"].away = True
        before = dict(replica.clusters.records)
        assert (await replica.registry.ask("a")).reason == "Fishing"
        assert replica.clusters.records == before


class TestReady:
    async def test_says_nothing_before_it_knows_and_needs_one_that_works(
        self, clusters: MemoryClusters, store: MemoryStore, clock: FakeClock
    ) -> None:
        default, a = Moody(), Moody()
        clusters.have(a_cluster("a"))
        replica = Replica(clusters, store, clock, {None: default, "sealed a": a})
        default.away = True
        await replica.watch.probe()
        await replica.watch.prepare()
        await replica.watch.probe()
        a.away = True
        for _ in range(2):
            await replica.check()
        with pytest.raises(RuntimeUnavailableError, match="fishing"):
            await replica.watch.probe()
        default.away = False
        await replica.check()
        await replica.watch.probe()
