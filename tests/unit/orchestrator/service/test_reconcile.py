"""One environment made so, step by step, on a runtime that may misbehave."""

from __future__ import annotations

import json

import pytest

from libs.common.contracts.events import (
    EnvironmentDeleteRequested,
    EnvironmentRestartRequested,
    EnvironmentStartRequested,
    EnvironmentStopRequested,
    RuntimeDeleted,
    RuntimeFailed,
    RuntimeLost,
    RuntimeProvisioning,
    RuntimeRunning,
    RuntimeStopped,
)
from libs.runtime.port import ObservedWorkspace, WorkspacePhase, WorkspaceRef
from services.orchestrator.domain.model import Said
from tests.fakes.runtime import (
    FakeRuntime,
)
from tests.unit.orchestrator.memory import FakeClock, MemoryStore, an_update, template, wish
from tests.unit.orchestrator.service.conftest import SEALER, Desk, a_reconciler


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


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
