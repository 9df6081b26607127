"""One environment on a runtime that refuses, is away, is overloaded, hangs or has a bug."""

from __future__ import annotations

from datetime import timedelta

from libs.common.contracts.events import (
    EnvironmentDeleteRequested,
    EnvironmentRestartRequested,
    EnvironmentStopRequested,
    RuntimeDelayed,
    RuntimeDeleted,
    RuntimeFailed,
    RuntimeProvisioning,
    RuntimeRunning,
    RuntimeStopped,
)
from libs.runtime.port import ObservedWorkspace, WorkspacePhase, WorkspaceRef
from services.orchestrator.domain.model import Limits, Said
from tests.fakes.runtime import (
    AbsentRuntime,
    BrokenRuntime,
    FakeRuntime,
    OverloadedRuntime,
    RefusingRuntime,
    SlowRuntime,
)
from tests.unit.orchestrator.memory import START, FakeClock, MemoryStore, wish
from tests.unit.orchestrator.service.conftest import Desk, a_reconciler


async def run_until_settled(
    store: MemoryStore, runtime: FakeRuntime, clock: FakeClock, *, limits: Limits | None = None
) -> list[float]:
    """Do what is due and move the clock to the next attempt, until the wish is answered; returns the pauses made."""
    reconciler = a_reconciler(store, runtime, clock, limits=limits)
    pauses: list[float] = []
    while True:
        await reconciler.reconcile("env1", only_if_due=True)
        record = store.records["env1"]
        if record.environment.is_settled:
            return pauses
        assert record.due_at is not None
        pauses.append((record.due_at - clock()).total_seconds())
        clock.forward(pauses[-1])


def an_overloaded_one(*, failures: int) -> OverloadedRuntime:
    """That has the workspace already."""
    runtime = OverloadedRuntime(failures=failures)
    runtime.put(ObservedWorkspace(WorkspaceRef("env1", "user1"), 1, WorkspacePhase.RUNNING))
    return runtime


class TestTrouble:
    async def test_a_refusal_fails_at_once_and_nothing_more_is_tried(
        self, store: MemoryStore, desk: Desk, clock: FakeClock
    ) -> None:
        runtime = RefusingRuntime()
        await desk.wish(wish())
        reconciler = a_reconciler(store, runtime, clock)
        for _ in range(3):
            await reconciler.reconcile("env1")
            clock.forward(1000)
        assert store.reported("env1") == [RuntimeProvisioning, RuntimeFailed]
        assert runtime.calls["ensure"] == 1
        assert desk.environment().reported.message == "There is no image of that name."

    async def test_a_refused_restart_leaves_nothing_of_the_old_wish_running(
        self, store: MemoryStore, desk: Desk, clock: FakeClock
    ) -> None:
        runtime = RefusingRuntime()
        runtime.put(ObservedWorkspace(WorkspaceRef("env1", "user1"), 1, WorkspacePhase.RUNNING))
        await desk.wish(wish(EnvironmentRestartRequested, generation=2))
        await a_reconciler(store, runtime, clock).reconcile("env1")
        assert desk.environment().said is Said.FAILED
        assert not runtime.runs("env1")
        assert "env1" in runtime.volumes

    async def test_an_overloaded_runtime_is_tried_again(self, store: MemoryStore, desk: Desk, clock: FakeClock) -> None:
        await desk.wish(wish())
        pauses = await run_until_settled(store, OverloadedRuntime(failures=4), clock)
        assert store.reported("env1") == [RuntimeProvisioning, RuntimeRunning]
        assert pauses == [0.5, 1, 2, 4]

    async def test_a_bug_in_a_driver_is_tried_again_and_told_nobody(
        self, store: MemoryStore, desk: Desk, clock: FakeClock
    ) -> None:
        await desk.wish(wish())
        await run_until_settled(store, BrokenRuntime(failures=2), clock)
        assert store.reported("env1") == [RuntimeProvisioning, RuntimeRunning]
        await desk.wish(wish(EnvironmentRestartRequested, generation=2))
        await run_until_settled(store, BrokenRuntime(failures=1000), clock, limits=Limits(provision_s=2))
        assert store.reported("env1")[-1] is RuntimeFailed
        assert "a bug" not in (desk.environment().reported.message or "")

    async def test_a_runtime_that_stays_away_fails_the_start_in_the_end(
        self, store: MemoryStore, desk: Desk, clock: FakeClock
    ) -> None:
        await desk.wish(wish())
        await run_until_settled(store, AbsentRuntime(None), clock)
        assert store.reported("env1") == [RuntimeDelayed, RuntimeFailed]
        assert timedelta(seconds=300) <= clock() - START <= timedelta(seconds=301)
        assert "within 300 s" in (desk.environment().reported.message or "")

    async def test_a_stop_that_cannot_be_done_fails_after_its_own_deadline(
        self, store: MemoryStore, desk: Desk, clock: FakeClock
    ) -> None:
        await desk.wish(wish(EnvironmentStopRequested))
        await run_until_settled(store, an_overloaded_one(failures=1000), clock)
        assert store.reported("env1") == [RuntimeDelayed, RuntimeFailed]
        assert timedelta(seconds=60) <= clock() - START <= timedelta(seconds=61)

    async def test_a_deletion_outlasts_every_outage(self, store: MemoryStore, desk: Desk, clock: FakeClock) -> None:
        runtime = an_overloaded_one(failures=200)
        await desk.wish(wish(EnvironmentDeleteRequested))
        pauses = await run_until_settled(store, runtime, clock)
        assert store.reported("env1") == [RuntimeDelayed, RuntimeDeleted]
        assert clock() - START > timedelta(hours=5)
        assert max(pauses) == 300

    async def test_a_poke_during_a_pause_does_not_shorten_it(
        self, store: MemoryStore, desk: Desk, clock: FakeClock
    ) -> None:
        runtime = OverloadedRuntime(failures=1000)
        await desk.wish(wish())
        reconciler = a_reconciler(store, runtime, clock)
        for _ in range(50):
            await reconciler.reconcile("env1")
        assert runtime.calls["ensure"] == 1

    async def test_a_new_wish_does_not_wait_for_the_pause_of_the_old_one(
        self, store: MemoryStore, desk: Desk, clock: FakeClock
    ) -> None:
        runtime = OverloadedRuntime(failures=1)
        await desk.wish(wish())
        reconciler = a_reconciler(store, runtime, clock)
        await reconciler.reconcile("env1")
        await desk.wish(wish(EnvironmentStopRequested, generation=2))
        await reconciler.reconcile("env1", only_if_due=True)
        assert store.reported("env1") == [RuntimeProvisioning, RuntimeStopped]

    async def test_a_runtime_that_is_away_does_not_fail_what_runs(
        self, store: MemoryStore, desk: Desk, clock: FakeClock
    ) -> None:
        runtime = AbsentRuntime(0)
        await desk.wish(wish())
        reconciler = a_reconciler(store, runtime, clock)
        await reconciler.reconcile("env1")
        runtime.absences = 1000
        for _ in range(40):
            clock.forward(30)
            await reconciler.reconcile("env1", only_if_due=True)
        runtime.absences = 0
        clock.forward(30)
        await reconciler.reconcile("env1", only_if_due=True)
        # Users are told once that it is out of sight, and once that it is back.
        assert store.reported("env1") == [RuntimeProvisioning, RuntimeRunning, RuntimeDelayed, RuntimeRunning]
        assert desk.environment().progress is None

    async def test_an_attempt_that_hangs_ends_with_its_time(
        self, store: MemoryStore, desk: Desk, clock: FakeClock
    ) -> None:
        await desk.wish(wish())
        runtime = SlowRuntime()
        await a_reconciler(store, runtime, clock, limits=Limits(provision_s=0.05)).reconcile("env1")
        assert runtime.cancelled == 1
        assert desk.environment().progress is not None
