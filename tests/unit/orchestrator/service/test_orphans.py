"""Workspaces without an environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from libs.common.contracts.events import EnvironmentDeleteRequested
from libs.runtime.port import ObservedWorkspace, WorkspacePhase, WorkspaceRef
from services.orchestrator.service.dispatch import Dispatcher, Pace
from services.orchestrator.service.orphans import OrphanCollector
from tests.fakes.runtime import FakeRuntime
from tests.unit.orchestrator.memory import FakeClock, MemoryHistory, MemoryStore, eventually, fleet_of, wish
from tests.unit.orchestrator.service.conftest import Desk, a_reconciler

GRACE_S = 600.0


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def history() -> MemoryHistory:
    return MemoryHistory()


@pytest.fixture
def collector(store: MemoryStore, runtime: FakeRuntime, history: MemoryHistory, clock: FakeClock) -> OrphanCollector:
    dispatcher = Dispatcher(a_reconciler(store, runtime, clock), store, fleet_of(runtime), clock, Pace(1, 1.0, 0.1))
    return OrphanCollector(store, fleet_of(runtime), history, dispatcher, clock, interval_s=60.0, grace_s=GRACE_S)


def an_orphan(runtime: FakeRuntime, phase: WorkspacePhase = WorkspacePhase.RUNNING) -> None:
    runtime.put(ObservedWorkspace(WorkspaceRef("lost1", "user1"), 1, phase))


class TestScan:
    async def test_an_orphan_whose_user_deleted_it_goes_after_the_grace(
        self, collector: OrphanCollector, runtime: FakeRuntime, history: MemoryHistory, clock: FakeClock
    ) -> None:
        history.deleted.add("lost1")
        an_orphan(runtime)
        await collector.scan()
        clock.forward(GRACE_S - 1)
        await collector.scan()
        assert "lost1" in runtime.volumes
        clock.forward(1)
        await collector.scan()
        assert runtime.volumes == set()

    async def test_one_look_is_never_enough(
        self, collector: OrphanCollector, runtime: FakeRuntime, history: MemoryHistory, clock: FakeClock
    ) -> None:
        history.deleted.add("lost1")
        an_orphan(runtime)
        clock.forward(10 * GRACE_S)
        await collector.scan()
        assert "lost1" in runtime.volumes

    async def test_one_that_nobody_deleted_is_stopped_and_keeps_its_volume(
        self, collector: OrphanCollector, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        an_orphan(runtime)
        for _ in range(10):
            await collector.scan()
            clock.forward(GRACE_S)
        assert not runtime.runs("lost1")
        assert "lost1" in runtime.volumes
        assert runtime.calls["stop"] == 1

    async def test_an_environment_whose_record_appears_is_no_orphan(
        self, collector: OrphanCollector, runtime: FakeRuntime, desk: Desk, history: MemoryHistory, clock: FakeClock
    ) -> None:
        history.deleted.add("lost1")
        an_orphan(runtime)
        await collector.scan()
        await desk.wish(wish(environment_id="lost1"))
        clock.forward(GRACE_S)
        await collector.scan()
        assert runtime.runs("lost1")

    async def test_the_grace_begins_anew_for_one_that_came_back(
        self, collector: OrphanCollector, runtime: FakeRuntime, history: MemoryHistory, clock: FakeClock
    ) -> None:
        history.deleted.add("lost1")
        an_orphan(runtime)
        await collector.scan()
        runtime.vanish("lost1")
        await collector.scan()
        clock.forward(GRACE_S)
        an_orphan(runtime)
        await collector.scan()
        await collector.scan()
        assert "lost1" in runtime.volumes

    async def test_what_a_tombstone_names_is_deleted_at_once(
        self, store: MemoryStore, runtime: FakeRuntime, desk: Desk, history: MemoryHistory, clock: FakeClock
    ) -> None:
        await desk.wish(wish(EnvironmentDeleteRequested, environment_id="lost1"))
        reconciler = a_reconciler(store, runtime, clock)
        await reconciler.reconcile("lost1")
        clock.forward(31)
        await reconciler.reconcile("lost1")
        an_orphan(runtime, WorkspacePhase.STOPPED)
        dispatcher = Dispatcher(reconciler, store, fleet_of(runtime), clock, Pace(1, 60.0, 1.0))
        await dispatcher.start()
        collector = OrphanCollector(
            store, fleet_of(runtime), history, dispatcher, clock, interval_s=60.0, grace_s=GRACE_S
        )
        await collector.scan()
        await eventually(lambda: not runtime.volumes)
        await dispatcher.stop()


async def test_a_scan_asks_only_for_those_that_no_living_environment_has(
    collector: OrphanCollector,
    store: MemoryStore,
    runtime: FakeRuntime,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(20):
        await store.accept(wish(environment_id=f"env{number}"), None, clock())
        store.records[f"env{number}"].environment = replace(
            store.records[f"env{number}"].environment, cluster="default"
        )
        runtime.put(ObservedWorkspace(WorkspaceRef(f"env{number}", "user1"), 1, WorkspacePhase.RUNNING))
    an_orphan(runtime)
    asked: list[str] = []
    buried = store.buried

    async def remembered(environment_ids: Sequence[str]) -> dict[str, bool]:
        asked.extend(environment_ids)
        return await buried(environment_ids)

    monkeypatch.setattr(store, "buried", remembered)
    await collector.scan()
    assert asked == ["lost1"]
