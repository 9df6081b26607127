"""Work under a lease: newer wishes end it, lost leases end it, and replicas never collide."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from libs.common.contracts.events import (
    EnvironmentDeleteRequested,
    EnvironmentStartRequested,
    EnvironmentStopRequested,
    EnvironmentWish,
    RuntimeDeleted,
    RuntimeProvisioning,
    RuntimeRunning,
    RuntimeStopped,
)
from services.orchestrator.domain.model import Change, Environment, Said
from tests.fakes.runtime import (
    FakeRuntime,
    SlowRuntime,
)
from tests.unit.orchestrator.memory import EPOCH, FakeClock, MemoryStore, an_update, wish
from tests.unit.orchestrator.service.conftest import Desk, a_reconciler


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


class TestNewerWish:
    @pytest.mark.parametrize(
        ("newer", "story"),
        [
            (wish(EnvironmentStopRequested, generation=2), [RuntimeProvisioning, RuntimeStopped]),
            (wish(EnvironmentDeleteRequested, generation=2), [RuntimeProvisioning, RuntimeDeleted]),
        ],
        ids=["stop", "delete"],
    )
    async def test_ends_the_work_on_the_old_one_at_once(
        self, store: MemoryStore, desk: Desk, clock: FakeClock, newer: EnvironmentWish, story: list[type]
    ) -> None:
        runtime = SlowRuntime()
        await desk.wish(wish())
        nudge = asyncio.Event()
        working = asyncio.create_task(a_reconciler(store, runtime, clock).reconcile("env1", nudge=nudge))
        await runtime.entered.wait()
        await desk.wish(newer)
        nudge.set()
        await asyncio.wait_for(working, 60)
        assert runtime.cancelled == 1
        assert store.reported("env1") == story
        assert not runtime.runs("env1")

    async def test_is_heard_by_the_next_renewal_when_it_came_to_another_replica(
        self, store: MemoryStore, desk: Desk, clock: FakeClock
    ) -> None:
        runtime = SlowRuntime()
        await desk.wish(wish())
        working = asyncio.create_task(a_reconciler(store, runtime, clock, lease_s=0.06).reconcile("env1"))
        await runtime.entered.wait()
        await desk.wish(wish(EnvironmentStopRequested, generation=2))
        await asyncio.wait_for(working, 60)
        assert store.reported("env1") == [RuntimeProvisioning, RuntimeStopped]

    async def test_that_comes_with_the_last_write_is_not_missed(
        self, store: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        class WishAtSave(MemoryStore):
            async def save(self, holder: str, change: Change, now: datetime, runtime: str) -> Environment | None:
                if self.reported("env1") == [RuntimeProvisioning]:
                    await desk.wish(wish(EnvironmentStopRequested, generation=2))
                return await super().save(holder, change, now, runtime)

        store = WishAtSave()
        desk = Desk(store, clock)
        await desk.wish(wish())
        await a_reconciler(store, runtime, clock).reconcile("env1")
        assert store.reported("env1") == [RuntimeProvisioning, RuntimeStopped]

    async def test_an_update_does_not_end_the_work(self, store: MemoryStore, desk: Desk, clock: FakeClock) -> None:
        runtime = SlowRuntime()
        await desk.wish(wish())
        nudge = asyncio.Event()
        working = asyncio.create_task(a_reconciler(store, runtime, clock).reconcile("env1", nudge=nudge))
        await runtime.entered.wait()
        await desk.wish(an_update(2))
        nudge.set()
        runtime.let_go.set()
        await asyncio.wait_for(working, 60)
        assert runtime.cancelled == 0
        assert desk.environment().said is Said.RUNNING
        assert desk.environment().name == "renamed"


class TestLease:
    async def test_two_replicas_never_work_on_one_environment_at_once(
        self, store: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        replicas = [a_reconciler(store, runtime, clock) for _ in range(2)]
        for generation in range(1, 20):
            kind = EnvironmentStartRequested if generation % 2 else EnvironmentStopRequested
            await desk.wish(wish(kind, generation=generation))
            await asyncio.gather(*(replica.reconcile("env1") for replica in replicas for _ in range(3)))
            assert desk.environment().is_settled
        assert runtime.overlaps == 0
        assert runtime.calls["ensure"] == 10

    async def test_a_lost_lease_ends_the_work_and_touches_nothing(
        self, store: MemoryStore, desk: Desk, clock: FakeClock
    ) -> None:
        runtime = SlowRuntime()
        await desk.wish(wish())
        nudge = asyncio.Event()
        working = asyncio.create_task(a_reconciler(store, runtime, clock).reconcile("env1", nudge=nudge))
        await runtime.entered.wait()
        clock.forward(16)
        successor = await store.acquire("env1", "b", clock(), clock() + timedelta(seconds=15), only_if_due=False)
        assert successor is not None
        nudge.set()
        await asyncio.wait_for(working, 60)
        assert runtime.cancelled == 1
        assert store.records["env1"].holder == "b"
        assert store.records["env1"].environment == successor
        assert store.reported("env1") == [RuntimeProvisioning]

    async def test_a_database_that_is_away_for_longer_than_the_lease_ends_the_work(
        self, desk: Desk, clock: FakeClock
    ) -> None:
        class AwayAtRenewal(MemoryStore):
            async def renew(self, *_: object) -> None:
                clock.forward(20)
                raise ConnectionError("no primary")

        store = AwayAtRenewal()
        await Desk(store, clock).wish(wish())
        runtime = SlowRuntime()
        nudge = asyncio.Event()
        nudge.set()
        await asyncio.wait_for(a_reconciler(store, runtime, clock).reconcile("env1", nudge=nudge), 60)
        assert not runtime.runs("env1")

    async def test_a_cancelled_replica_gives_its_lease_back_and_another_goes_on(
        self, store: MemoryStore, desk: Desk, clock: FakeClock
    ) -> None:
        runtime = SlowRuntime()
        await desk.wish(wish())
        working = asyncio.create_task(a_reconciler(store, runtime, clock).reconcile("env1"))
        await runtime.entered.wait()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert store.records["env1"].until == EPOCH
        runtime.let_go.set()
        assert list(await store.due(clock(), 10)) == ["env1"]
        await a_reconciler(store, runtime, clock).reconcile("env1", only_if_due=True)
        assert store.reported("env1") == [RuntimeProvisioning, RuntimeRunning]
