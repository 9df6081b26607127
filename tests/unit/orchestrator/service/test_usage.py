"""Usage samples."""

from __future__ import annotations

import asyncio

import pytest

from libs.common.contracts.events import EnvironmentStopRequested
from libs.runtime.port import WorkspaceRef, WorkspaceStats
from services.orchestrator.service.dispatch import Dispatcher, Pace
from services.orchestrator.service.usage import UsageSampler
from tests.fakes.runtime import FakeRuntime
from tests.unit.orchestrator.memory import FakeClock, MemorySink, MemoryStore, eventually, fleet_of, wish
from tests.unit.orchestrator.service.conftest import Desk, a_reconciler


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
async def running(store: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock) -> MemoryStore:
    for environment_id in ("env1", "env2"):
        await desk.wish(wish(environment_id=environment_id))
        await a_reconciler(store, runtime, clock).reconcile(environment_id)
    return store


def a_sampler(store: MemoryStore, runtime: FakeRuntime, clock: FakeClock, sink: MemorySink) -> UsageSampler:
    reconciler = a_reconciler(store, runtime, clock)
    dispatcher = Dispatcher(reconciler, store, fleet_of(runtime), clock, Pace(1, 1.0, 0.1))
    return UsageSampler(store, fleet_of(runtime), sink, dispatcher, clock, interval_s=5.0, wake=asyncio.Event())


class TestSampleAll:
    async def test_what_runs_is_sampled_once_per_interval_by_one_replica(
        self, running: MemoryStore, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        sink = MemorySink()
        replicas = [a_sampler(running, runtime, clock, sink) for _ in range(3)]
        await asyncio.gather(*(replica.sample_all() for replica in replicas))
        assert sorted(sample.environment_id for sample in sink.samples) == ["env1", "env2"]
        assert sink.samples[0].memory_bytes == 1 << 20
        clock.forward(4.9)
        await replicas[0].sample_all()
        assert len(sink.samples) == 2
        clock.forward(0.1)
        await replicas[1].sample_all()
        assert len(sink.samples) == 4

    async def test_what_is_to_stop_is_not_sampled(
        self, running: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        await desk.wish(wish(EnvironmentStopRequested, generation=2))
        sink = MemorySink()
        await a_sampler(running, runtime, clock, sink).sample_all()
        assert [sample.environment_id for sample in sink.samples] == ["env2"]

    async def test_one_that_fails_does_not_keep_the_others_from_being_sampled(
        self, running: MemoryStore, clock: FakeClock, runtime: FakeRuntime
    ) -> None:
        class HalfBlind(FakeRuntime):
            async def stats(self, ref: WorkspaceRef) -> WorkspaceStats:
                if ref.environment_id == "env1":
                    raise OSError("no such cgroup")
                return await super().stats(ref)

        blind = HalfBlind()
        blind.workspaces = runtime.workspaces
        sink = MemorySink()
        await a_sampler(running, blind, clock, sink).sample_all()
        assert [sample.environment_id for sample in sink.samples] == ["env2"]

    async def test_one_that_is_not_there_gets_a_closer_look(
        self, running: MemoryStore, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        runtime.vanish("env1")
        looked: list[str] = []

        class NotingDispatcher(Dispatcher):
            def poke(self, environment_id: str, *, force: bool = False) -> None:
                looked.append(environment_id)

        reconciler = a_reconciler(running, runtime, clock)
        dispatcher = NotingDispatcher(reconciler, running, fleet_of(runtime), clock, Pace(1, 1.0, 0.1))
        sampler = UsageSampler(
            running, fleet_of(runtime), MemorySink(), dispatcher, clock, interval_s=5.0, wake=asyncio.Event()
        )
        await sampler.sample_all()
        assert looked == ["env1"]


class TestLoop:
    async def test_a_workspace_that_comes_up_is_sampled_at_once(
        self, store: MemoryStore, desk: Desk, runtime: FakeRuntime, clock: FakeClock
    ) -> None:
        sink = MemorySink()
        wake = asyncio.Event()
        reconciler = a_reconciler(store, runtime, clock, on_running=wake.set)
        dispatcher = Dispatcher(reconciler, store, fleet_of(runtime), clock, Pace(1, 1.0, 0.1))
        sampler = UsageSampler(store, fleet_of(runtime), sink, dispatcher, clock, interval_s=3600.0, wake=wake)
        sampler.start()
        await desk.wish(wish())
        await reconciler.reconcile("env1")
        await eventually(lambda: len(sink.samples) == 1)
        await sampler.stop()
