"""One environment made so, step by step, on a runtime that may misbehave."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta

import pytest

from libs.common.contracts.events import (
    EnvironmentDeleteRequested,
    EnvironmentRestartRequested,
    EnvironmentStartRequested,
    EnvironmentStopRequested,
    EnvironmentWish,
    RuntimeDeleted,
    RuntimeFailed,
    RuntimeLost,
    RuntimeProvisioning,
    RuntimeRunning,
    RuntimeStopped,
)
from libs.runtime.port import ObservedWorkspace, WorkspacePhase, WorkspaceRef
from services.orchestrator.domain.model import Change, Environment, Limits, Said
from tests.fakes.runtime import (
    AbsentRuntime,
    BrokenRuntime,
    FakeRuntime,
    OverloadedRuntime,
    RefusingRuntime,
    SlowRuntime,
)
from tests.unit.orchestrator.memory import EPOCH, START, FakeClock, MemoryStore, an_update, template, wish
from tests.unit.orchestrator.service.conftest import SEALER, Desk, a_reconciler


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


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


class TestCreate:
    async def test_provisions_once_and_says_so(
        self, store: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        await desk.wish(wish())
        await a_reconciler(store, runtime, clock).reconcile("env1")
        assert store.reported("env1") == [RuntimeProvisioning, RuntimeRunning]
        assert runtime.runs("env1")
        assert store.records["env1"].holder is None

    async def test_the_runtime_gets_the_whole_wish(
        self, store: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        variables = {"GREETING": "hello $USER", "EMPTY": ""}
        spec = template(variables_sealed=SEALER.seal(json.dumps(variables)), startup_command="make run")
        await desk.wish(wish(spec=spec, generation=3))
        await a_reconciler(store, runtime, clock).reconcile("env1")
        made = runtime.specs["env1"]
        assert made.ref == WorkspaceRef("env1", "user1")
        assert (made.generation, made.name, made.image) == (3, "box", "python")
        assert (made.variables, made.startup_command) == (variables, "make run")
        limits = made.limits
        assert (limits.cpu_millis, limits.memory_bytes, limits.storage_bytes) == (500, 1 << 30, 5 << 30)

    @pytest.mark.parametrize(
        "sealed", ["not sealed at all", SEALER.seal("no json"), SEALER.seal("[1]")], ids=["key", "json", "list"]
    )
    async def test_unreadable_variables_fail_with_advice(
        self, store: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock, sealed: str
    ) -> None:
        await desk.wish(wish(spec=template(variables_sealed=sealed)))
        await a_reconciler(store, runtime, clock).reconcile("env1")
        assert store.reported("env1") == [RuntimeProvisioning, RuntimeFailed]
        assert desk.environment().reported.reason == "VariablesUnreadable"

    async def test_doing_it_again_does_nothing(
        self, store: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        await desk.wish(wish())
        for _ in range(5):
            await a_reconciler(store, runtime, clock).reconcile("env1")
        assert store.reported("env1") == [RuntimeProvisioning, RuntimeRunning]
        assert runtime.calls["ensure"] == 1

    async def test_an_unknown_environment_is_nobodys_business(
        self, store: MemoryStore, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        await a_reconciler(store, runtime, clock).reconcile("env1")
        assert not runtime.calls

    async def test_a_replica_that_died_after_the_start_leaves_only_the_report(
        self, store: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        await desk.wish(wish())
        runtime.put(ObservedWorkspace(WorkspaceRef("env1", "user1"), 1, WorkspacePhase.RUNNING))
        await a_reconciler(store, runtime, clock).reconcile("env1")
        assert store.reported("env1") == [RuntimeRunning]
        assert runtime.calls["ensure"] == 0


class TestOtherWishes:
    @pytest.fixture
    async def running(self, store: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock) -> MemoryStore:
        await desk.wish(wish())
        await a_reconciler(store, runtime, clock).reconcile("env1")
        store.reports.clear()
        return store

    async def test_stop_keeps_the_volume(
        self, running: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        await desk.wish(wish(EnvironmentStopRequested, generation=2))
        await a_reconciler(running, runtime, clock).reconcile("env1")
        assert running.reported("env1") == [RuntimeStopped]
        assert not runtime.runs("env1")
        assert "env1" in runtime.volumes

    async def test_stop_of_nothing_is_stopped(
        self, store: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        await desk.wish(wish(EnvironmentStopRequested, generation=2))
        await a_reconciler(store, runtime, clock).reconcile("env1")
        assert store.reported("env1") == [RuntimeStopped]

    async def test_start_after_stop(
        self, running: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        reconciler = a_reconciler(running, runtime, clock)
        await desk.wish(wish(EnvironmentStopRequested, generation=2))
        await reconciler.reconcile("env1")
        await desk.wish(wish(EnvironmentStartRequested, generation=3))
        await reconciler.reconcile("env1")
        assert running.reported("env1") == [RuntimeStopped, RuntimeProvisioning, RuntimeRunning]

    async def test_restart_replaces_the_old_one(
        self, running: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        await desk.wish(wish(EnvironmentRestartRequested, generation=2))
        await a_reconciler(running, runtime, clock).reconcile("env1")
        assert running.reported("env1") == [RuntimeProvisioning, RuntimeRunning]
        assert runtime.workspaces["env1"].generation == 2

    async def test_an_update_disturbs_nothing(
        self, running: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        await desk.wish(an_update(2))
        await a_reconciler(running, runtime, clock).reconcile("env1")
        assert running.reports == []
        assert runtime.calls["ensure"] == 1

    async def test_delete_leaves_a_tombstone_that_late_wishes_cannot_open(
        self, running: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        await desk.wish(wish(EnvironmentDeleteRequested, generation=2))
        reconciler = a_reconciler(running, runtime, clock)
        await reconciler.reconcile("env1")
        assert not await desk.wish(wish(EnvironmentStartRequested, generation=3))
        await reconciler.reconcile("env1")
        assert running.reported("env1") == [RuntimeDeleted]
        assert runtime.volumes == set()

    async def test_what_a_late_start_left_after_the_deletion_goes_too(
        self, running: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        await desk.wish(wish(EnvironmentDeleteRequested, generation=2))
        reconciler = a_reconciler(running, runtime, clock)
        await reconciler.reconcile("env1")
        runtime.put(ObservedWorkspace(WorkspaceRef("env1", "user1"), 1, WorkspacePhase.RUNNING))
        clock.forward(30)
        await reconciler.reconcile("env1", only_if_due=True)
        assert runtime.volumes == set()
        assert running.reported("env1") == [RuntimeDeleted]
        clock.forward(30)
        await reconciler.reconcile("env1", only_if_due=True)
        assert list(await running.living()) == []

    async def test_what_runs_against_the_wish_is_halted_quietly(
        self, running: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        await desk.wish(wish(EnvironmentStopRequested, generation=2))
        reconciler = a_reconciler(running, runtime, clock)
        await reconciler.reconcile("env1")
        runtime.put(ObservedWorkspace(WorkspaceRef("env1", "user1"), 2, WorkspacePhase.RUNNING))
        await reconciler.reconcile("env1")
        assert not runtime.runs("env1")
        assert running.reported("env1") == [RuntimeStopped]


class TestLosses:
    async def test_a_workspace_removed_by_hand_is_back_and_the_story_shows_it(
        self, store: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        await desk.wish(wish())
        reconciler = a_reconciler(store, runtime, clock)
        await reconciler.reconcile("env1")
        runtime.vanish("env1")
        await reconciler.reconcile("env1")
        assert store.reported("env1") == [RuntimeProvisioning, RuntimeRunning, RuntimeLost, RuntimeRunning]
        assert {about.generation for about, _ in store.reports} == {1}
        assert runtime.runs("env1")

    async def test_a_crash_says_why(
        self, store: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        await desk.wish(wish())
        reconciler = a_reconciler(store, runtime, clock)
        await reconciler.reconcile("env1")
        runtime.crash("env1")
        await reconciler.reconcile("env1")
        (lost,) = [report for _, report in store.reports if report.kind is RuntimeLost]
        assert (lost.reason, lost.message) == ("OutOfMemory", "It used more memory than it may.")

    async def test_a_crash_loop_ends_and_a_new_start_begins_anew(
        self, store: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        await desk.wish(wish())
        reconciler = a_reconciler(store, runtime, clock)
        await reconciler.reconcile("env1")
        while desk.environment().said is Said.RUNNING:
            runtime.crash("env1")
            clock.forward(1)
            await reconciler.reconcile("env1")
            while desk.environment().said is Said.LOST:
                clock.forward(8)
                await reconciler.reconcile("env1", only_if_due=True)
        assert store.reported("env1").count(RuntimeLost) == 5
        assert store.reported("env1")[-1] is RuntimeFailed
        assert desk.environment().reported.reason == "CrashLoop"
        ensures = runtime.calls["ensure"]
        clock.forward(10_000)
        await reconciler.reconcile("env1")
        assert runtime.calls["ensure"] == ensures
        await desk.wish(wish(EnvironmentStartRequested, generation=2))
        await reconciler.reconcile("env1")
        assert desk.environment().said is Said.RUNNING


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
        assert store.reported("env1") == [RuntimeFailed]
        assert timedelta(seconds=300) <= clock() - START <= timedelta(seconds=301)
        assert "within 300 s" in (desk.environment().reported.message or "")

    async def test_a_stop_that_cannot_be_done_fails_after_its_own_deadline(
        self, store: MemoryStore, desk: Desk, clock: FakeClock
    ) -> None:
        await desk.wish(wish(EnvironmentStopRequested))
        await run_until_settled(store, OverloadedRuntime(failures=1000), clock)
        assert store.reported("env1") == [RuntimeFailed]
        assert timedelta(seconds=60) <= clock() - START <= timedelta(seconds=61)

    async def test_a_deletion_outlasts_every_outage(self, store: MemoryStore, desk: Desk, clock: FakeClock) -> None:
        runtime = OverloadedRuntime(failures=200)
        await desk.wish(wish(EnvironmentDeleteRequested))
        pauses = await run_until_settled(store, runtime, clock)
        assert store.reported("env1") == [RuntimeDeleted]
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
        assert store.reported("env1") == [RuntimeProvisioning, RuntimeRunning]
        assert desk.environment().progress is None

    async def test_an_attempt_that_hangs_ends_with_its_time(
        self, store: MemoryStore, desk: Desk, clock: FakeClock
    ) -> None:
        await desk.wish(wish())
        runtime = SlowRuntime()
        await a_reconciler(store, runtime, clock, limits=Limits(provision_s=0.05)).reconcile("env1")
        assert runtime.cancelled == 1
        assert desk.environment().progress is not None


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
        await asyncio.wait_for(working, 5)
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
        await asyncio.wait_for(working, 5)
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
        await asyncio.wait_for(working, 5)
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
        await asyncio.wait_for(working, 5)
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
        await asyncio.wait_for(a_reconciler(store, runtime, clock).reconcile("env1", nudge=nudge), 5)
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
