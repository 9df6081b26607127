"""Who is reconciled when, with real tasks and a runtime that watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import cast

import pytest

from libs.common.clock import utc_now
from libs.common.contracts.events import (
    EnvironmentCreated,
    EnvironmentDeleteRequested,
    EnvironmentStartRequested,
    EnvironmentStopRequested,
    RuntimeFailed,
    RuntimeLost,
    RuntimeProvisioning,
    RuntimeRunning,
    RuntimeStopped,
)
from libs.runtime.port import ObservedWorkspace, WorkspaceSpec
from services.orchestrator.domain.model import Change, Environment, Limits
from services.orchestrator.service import dispatch
from services.orchestrator.service.dispatch import Dispatcher, Pace
from services.orchestrator.service.reconcile import Reconciler
from services.orchestrator.service.wishes import Wishes
from tests.fakes.runtime import CrashingRuntime, FakeRuntime, SlowRuntime
from tests.unit.orchestrator.memory import EPOCH, MemoryStore, eventually, fleet_of, wish
from tests.unit.orchestrator.service.conftest import a_reconciler


@asynccontextmanager
async def replica(
    store: MemoryStore,
    runtime: FakeRuntime,
    *,
    concurrency: int = 4,
    finish_s: float = 0.5,
    scan_interval_s: float = 0.02,
    limits: Limits | None = None,
) -> AsyncIterator[tuple[Dispatcher, Wishes]]:
    reconciler = a_reconciler(store, runtime, utc_now, limits=limits)
    dispatcher = Dispatcher(reconciler, store, fleet_of(runtime), utc_now, Pace(concurrency, scan_interval_s, finish_s))
    await dispatcher.start()
    try:
        yield dispatcher, Wishes(store, dispatcher.wished, utc_now)
    finally:
        await dispatcher.stop()


class TestPoke:
    async def test_a_wish_is_worked_on_at_once(self, store: MemoryStore) -> None:
        runtime = FakeRuntime()
        async with replica(store, runtime, scan_interval_s=60) as (_, wishes):
            await wishes.accept(wish())
            await eventually(lambda: store.reported("env1") == [RuntimeProvisioning, RuntimeRunning])

    async def test_many_pokes_are_one_piece_of_work(self, store: MemoryStore) -> None:
        runtime = FakeRuntime()
        async with replica(store, runtime, scan_interval_s=60) as (dispatcher, wishes):
            await wishes.accept(wish())
            for _ in range(100):
                dispatcher.poke("env1", force=True)
            await eventually(lambda: runtime.runs("env1"))
        assert runtime.calls["inspect"] < 10
        assert runtime.overlaps == 0

    async def test_no_more_than_allowed_are_in_work(self, store: MemoryStore) -> None:
        class CountingRuntime(SlowRuntime):
            busy = most = 0

            async def before_ensure(self, spec: WorkspaceSpec) -> None:
                self.busy += 1
                self.most = max(self.most, self.busy)
                await super().before_ensure(spec)
                self.busy -= 1

        runtime = CountingRuntime()
        async with replica(store, runtime, concurrency=3) as (_, wishes):
            for number in range(10):
                await wishes.accept(wish(environment_id=f"env{number}"))
            await eventually(lambda: runtime.busy == 3)
            runtime.let_go.set()
            await eventually(lambda: len(runtime.workspaces) == 10)
        assert runtime.most == 3

    async def test_a_user_does_not_wait_for_repairs_after_a_restart(self, store: MemoryStore) -> None:
        for number in range(10):
            await store.accept(wish(environment_id=f"env{number}"), None, utc_now())
        begun: list[str] = []

        class NotingRuntime(SlowRuntime):
            async def before_ensure(self, spec: WorkspaceSpec) -> None:
                begun.append(spec.ref.environment_id)
                await super().before_ensure(spec)

        runtime = NotingRuntime()
        async with replica(store, runtime, concurrency=1) as (_, wishes):
            await runtime.entered.wait()
            await wishes.accept(wish(environment_id="new"))
            await wishes.accept(wish(EnvironmentStartRequested, environment_id="env9", generation=2))
            runtime.let_go.set()
            await eventually(lambda: len(runtime.workspaces) == 11)
        assert begun[1:3] == ["new", "env9"]
        assert len(begun) == 11

    async def test_a_stop_while_creating_takes_effect_at_once(self, store: MemoryStore) -> None:
        runtime = SlowRuntime()
        async with replica(store, runtime, scan_interval_s=60) as (_, wishes):
            await wishes.accept(wish())
            await runtime.entered.wait()
            await wishes.accept(wish(EnvironmentStopRequested, generation=2))
            await eventually(lambda: store.reported("env1") == [RuntimeProvisioning, RuntimeStopped])
        assert runtime.cancelled == 1


class TestWatch:
    async def test_a_crash_is_repaired_without_a_scan(self, store: MemoryStore) -> None:
        runtime = FakeRuntime()
        async with replica(store, runtime, scan_interval_s=60) as (_, wishes):
            await wishes.accept(wish())
            await eventually(lambda: store.reported("env1")[-1:] == [RuntimeRunning])
            runtime.crash("env1")
            await eventually(lambda: store.reported("env1")[-2:] == [RuntimeLost, RuntimeRunning])

    async def test_a_crash_in_the_last_moment_of_the_work_is_not_missed(self) -> None:
        class CrashAtSave(MemoryStore):
            async def save(self, holder: str, change: Change, now: datetime, runtime: str) -> Environment | None:
                if self.reported("env1") == [RuntimeProvisioning]:
                    fake.crash("env1")
                    await asyncio.sleep(0.01)
                return await super().save(holder, change, now, runtime)

        fake = FakeRuntime()
        store = CrashAtSave()
        async with replica(store, fake, scan_interval_s=60) as (_, wishes):
            await wishes.accept(wish())
            await eventually(lambda: store.reported("env1")[-2:] == [RuntimeLost, RuntimeRunning])

    async def test_a_workspace_that_always_crashes_is_given_up(self, store: MemoryStore) -> None:
        runtime = CrashingRuntime()
        async with replica(store, runtime, limits=Limits(losses=2)) as (_, wishes):
            await wishes.accept(wish())
            await eventually(lambda: RuntimeFailed in store.reported("env1"))
        assert store.reported("env1").count(RuntimeLost) == 2
        assert runtime.calls["ensure"] == 3

    async def test_a_watch_that_breaks_is_taken_up_again_with_a_look_at_everything(
        self, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("_WATCH_AGAIN_S", "_LASTS_S"):
            monkeypatch.setattr(dispatch, name, 0.01)

        class DeafRuntime(FakeRuntime):
            watches = 0
            breaks = asyncio.Event()

            async def watch(self) -> AsyncIterator[ObservedWorkspace]:
                self.watches += 1
                if self.watches == 1:
                    await self.breaks.wait()
                    raise ConnectionError("watch is gone")
                async for observed in super().watch():
                    yield observed

        runtime = DeafRuntime()
        async with replica(store, runtime, scan_interval_s=60) as (_, wishes):
            await wishes.accept(wish())
            await eventually(lambda: store.reported("env1")[-1:] == [RuntimeRunning])
            runtime.vanish("env1")
            runtime.breaks.set()
            await eventually(lambda: RuntimeLost in store.reported("env1"))
            assert runtime.watches == 2


class TestScan:
    async def test_a_wish_that_came_to_a_dead_replica_is_found(self, store: MemoryStore) -> None:
        await store.accept(wish(), None, utc_now())
        runtime = FakeRuntime()
        async with replica(store, runtime):
            await eventually(lambda: runtime.runs("env1"))

    async def test_drift_that_no_watch_told_is_found_by_the_regular_look(self, store: MemoryStore) -> None:
        runtime = FakeRuntime()
        async with replica(store, runtime, limits=Limits(resync_s=0.05)) as (_, wishes):
            await wishes.accept(wish())
            await eventually(lambda: store.reported("env1")[-1:] == [RuntimeRunning])
            runtime.vanish("env1")
            await eventually(lambda: store.reported("env1")[-2:] == [RuntimeLost, RuntimeRunning])

    async def test_a_database_that_is_away_stops_nothing_for_good(self) -> None:
        class MoodyStore(MemoryStore):
            failures = 3

            async def due(self, *args: object) -> list[str]:
                if self.failures > 0:
                    self.failures -= 1
                    raise ConnectionError("no primary")
                return list(await super().due(utc_now(), 10))

        store = MoodyStore()
        runtime = FakeRuntime()
        async with replica(store, runtime):
            await store.accept(wish(), None, utc_now())
            await eventually(lambda: runtime.runs("env1"))


class TestStart:
    async def test_what_still_runs_is_adopted_untouched_and_what_does_not_is_started(self, store: MemoryStore) -> None:
        runtime = FakeRuntime()
        async with replica(store, runtime) as (_, wishes):
            for number in range(3):
                await wishes.accept(wish(environment_id=f"env{number}"))
            await eventually(lambda: len(store.reports) == 6)
        store.reports.clear()
        runtime.vanish("env2")
        runtime.calls.clear()
        async with replica(store, runtime, scan_interval_s=60):
            await eventually(lambda: len(store.reports) == 2)
        assert store.reported("env2") == [RuntimeLost, RuntimeRunning]
        assert runtime.calls["ensure"] == 1
        assert runtime.calls["stop"] == 0

    async def test_many_restarts_of_the_stack_are_no_crash_loop(self, store: MemoryStore) -> None:
        runtime = FakeRuntime()
        async with replica(store, runtime) as (_, wishes):
            await wishes.accept(wish())
            await eventually(lambda: runtime.runs("env1"))
        for _ in range(8):
            runtime.vanish("env1")
            await a_reconciler(store, runtime, utc_now, serving_since=utc_now()).reconcile("env1")
            assert runtime.runs("env1")
        assert RuntimeFailed not in store.reported("env1")


class TestStop:
    async def test_work_at_hand_may_finish(self, store: MemoryStore) -> None:
        runtime = SlowRuntime()
        async with replica(store, runtime, finish_s=60) as (_, wishes):
            await wishes.accept(wish())
            await runtime.entered.wait()
            asyncio.get_running_loop().call_later(0.05, runtime.let_go.set)
        assert store.reported("env1") == [RuntimeProvisioning, RuntimeRunning]
        assert runtime.calls["stop"] == 0

    async def test_work_that_takes_too_long_is_cancelled_and_its_lease_given_back(self, store: MemoryStore) -> None:
        runtime = SlowRuntime()
        async with asyncio.timeout(60):
            async with replica(store, runtime, finish_s=0.05) as (_, wishes):
                await wishes.accept(wish())
                await runtime.entered.wait()
        assert runtime.cancelled == 1
        assert store.records["env1"].until == EPOCH


class TestReplicas:
    @pytest.mark.parametrize("environments", [1, 12])
    async def test_share_the_work_and_never_collide(self, store: MemoryStore, environments: int) -> None:
        runtime = FakeRuntime()
        ids = [f"env{number}" for number in range(environments)]
        async with replica(store, runtime) as (_, one), replica(store, runtime) as (_, two):
            kinds = [EnvironmentCreated, EnvironmentStopRequested, EnvironmentDeleteRequested]
            for generation, kind in enumerate(kinds, start=1):
                for number, environment_id in enumerate(ids):
                    wishes = one if number % 2 else two
                    await wishes.accept(wish(kind, environment_id=environment_id, generation=generation))
                await eventually(lambda: all(record.environment.is_settled for record in store.records.values()))
        assert runtime.overlaps == 0
        assert runtime.calls["ensure"] == environments
        assert runtime.volumes == set()


class _Holding:
    """A reconciler that never ends what it was given."""

    def __init__(self) -> None:
        self.ids: set[str] = set()

    async def reconcile(self, environment_id: str, *, only_if_due: bool, nudge: asyncio.Event) -> None:
        self.ids.add(environment_id)
        await asyncio.Event().wait()


async def test_replicas_do_not_all_take_the_same_of_much_that_is_due(store: MemoryStore) -> None:
    holding = [_Holding(), _Holding()]
    pace = Pace(concurrency=64, scan_interval_s=60.0, finish_s=0.0)
    fleet = fleet_of(FakeRuntime())
    dispatchers = [Dispatcher(cast("Reconciler", each), store, fleet, utc_now, pace) for each in holding]
    for dispatcher in dispatchers:
        await dispatcher.start()
    try:
        for number in range(1_000):
            await store.accept(wish(environment_id=f"env{number}"), None, utc_now())
        for dispatcher in dispatchers:
            await dispatcher.scan()
        await eventually(lambda: all(len(each.ids) == 64 for each in holding))
        assert len(holding[0].ids | holding[1].ids) > 90
    finally:
        for dispatcher in dispatchers:
            await dispatcher.stop()
