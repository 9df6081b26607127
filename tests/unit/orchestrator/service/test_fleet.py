"""The workspaces of several clusters behind one object."""

from __future__ import annotations

import asyncio

import pytest

from libs.runtime.port import (
    ObservedWorkspace,
    RuntimeUnavailableError,
    WorkspaceLimits,
    WorkspaceNotFoundError,
    WorkspacePhase,
    WorkspaceRef,
    WorkspaceRejectedError,
    WorkspaceSpec,
)
from services.orchestrator.service.fleet import FleetRuntime
from tests.fakes.runtime import FakeRuntime, SlowRuntime
from tests.unit.orchestrator.memory import eventually


def ref(cluster: str, environment_id: str = "env1") -> WorkspaceRef:
    return WorkspaceRef(environment_id, "user1", cluster)


def spec(cluster: str, environment_id: str = "env1") -> WorkspaceSpec:
    return WorkspaceSpec(ref(cluster, environment_id), 1, "box", "python", WorkspaceLimits(500, 1 << 30, 1 << 30))


def a_fleet(in_flight: int = 2, **runtimes: FakeRuntime) -> FleetRuntime:
    fleet = FleetRuntime(in_flight=in_flight)
    for name, runtime in runtimes.items():
        assert fleet.put(name, name, lambda runtime=runtime: runtime)  # type: ignore[misc]
    return fleet


class TestRouting:
    async def test_every_call_goes_to_the_cluster_of_the_workspace(self) -> None:
        a, b = FakeRuntime(), FakeRuntime()
        fleet = a_fleet(a=a, b=b)
        await fleet.ensure(spec("b"))
        assert (a.runs("env1"), b.runs("env1")) == (False, True)
        assert await fleet.inspect(ref("a")) is None
        assert (await fleet.stats(ref("b"))).memory_bytes > 0
        assert [found.ref.environment_id for found in await fleet.list("b")] == ["env1"]
        assert await fleet.check("a") == "fake"
        await fleet.stop(ref("b"))
        assert not b.runs("env1")
        await fleet.delete(ref("b"))
        assert b.volumes == set()
        assert (a.calls["ensure"], a.calls["stop"], a.calls["delete"]) == (0, 0, 0)

    async def test_a_watch_is_of_one_cluster(self) -> None:
        a, b = FakeRuntime(), FakeRuntime()
        fleet = a_fleet(a=a, b=b)
        await fleet.ensure(spec("a"))
        await fleet.ensure(spec("b", "env2"))
        heard: asyncio.Queue[ObservedWorkspace] = asyncio.Queue()

        async def listen() -> None:
            async for observed in fleet.watch("b"):
                heard.put_nowait(observed)

        listening = asyncio.create_task(listen())
        await eventually(lambda: len(b._watchers) == 1)
        a.crash("env1")
        b.crash("env2")
        observed = await asyncio.wait_for(heard.get(), 60)
        assert (observed.ref.environment_id, observed.phase) == ("env2", WorkspacePhase.FAILED)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    async def test_an_unknown_cluster_may_be_known_later(self) -> None:
        fleet = a_fleet(a=FakeRuntime())
        for call in (fleet.ensure(spec("x")), fleet.inspect(ref("x")), fleet.delete(ref("x")), fleet.check("x")):
            with pytest.raises(RuntimeUnavailableError, match="no cluster 'x'"):
                await call
        assert fleet.put("x", 1, FakeRuntime)
        assert await fleet.inspect(ref("x")) is None
        assert list(fleet.ids()) == ["a", "x"]


class TestBounds:
    async def test_changes_are_bounded_per_cluster_and_a_stuck_one_holds_up_no_other(self) -> None:
        class Counting(SlowRuntime):
            busy = most = 0

            async def before_ensure(self, spec: WorkspaceSpec) -> None:
                self.busy += 1
                self.most = max(self.most, self.busy)
                await super().before_ensure(spec)
                self.busy -= 1

        stuck, well = Counting(), FakeRuntime()
        fleet = a_fleet(in_flight=2, stuck=stuck, well=well)
        waiting = [asyncio.create_task(fleet.ensure(spec("stuck", f"env{number}"))) for number in range(6)]
        await asyncio.wait_for(stuck.entered.wait(), 60)
        await eventually(lambda: stuck.busy == 2)
        await asyncio.wait_for(fleet.ensure(spec("well")), 60)
        assert await asyncio.wait_for(fleet.inspect(ref("stuck")), 60) is None
        assert await asyncio.wait_for(fleet.check("stuck"), 60) == "fake"
        stuck.let_go.set()
        await asyncio.wait_for(asyncio.gather(*waiting), 60)
        assert (stuck.most, stuck.calls["ensure"]) == (2, 6)

    async def test_a_call_that_is_given_up_gives_its_place_back(self) -> None:
        slow = SlowRuntime()
        fleet = a_fleet(in_flight=1, a=slow)
        for number in range(3):
            call = asyncio.create_task(fleet.ensure(spec("a", f"env{number}")))
            await asyncio.wait_for(slow.entered.wait(), 60)
            slow.entered.clear()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        assert slow.cancelled == 3


class TestHold:
    async def test_a_held_cluster_is_not_asked_but_checked(self) -> None:
        a, b = FakeRuntime(), FakeRuntime()
        fleet = a_fleet(a=a, b=b)
        fleet.hold("a", "It is away.")
        for call in (fleet.ensure(spec("a")), fleet.inspect(ref("a")), fleet.list("a"), fleet.stop(ref("a"))):
            with pytest.raises(RuntimeUnavailableError, match="It is away") as raised:
                await call
            assert raised.value.reason == "ClusterUnreachable"
        assert a.calls.total() == 0
        assert await fleet.check("a") == "fake"
        await fleet.ensure(spec("b"))
        assert fleet.resume("a")
        assert not fleet.resume("a")
        await fleet.ensure(spec("a"))
        assert a.runs("env1")

    async def test_what_waits_for_its_turn_is_told_too(self) -> None:
        slow = SlowRuntime()
        fleet = a_fleet(in_flight=1, a=slow)
        first = asyncio.create_task(fleet.ensure(spec("a")))
        await asyncio.wait_for(slow.entered.wait(), 60)
        second = asyncio.create_task(fleet.ensure(spec("a", "env2")))
        await asyncio.sleep(0)
        fleet.hold("a", "It is away.")
        slow.let_go.set()
        await first
        with pytest.raises(RuntimeUnavailableError, match="It is away"):
            await second
        assert slow.calls["ensure"] == 1


class TestRemove:
    async def test_nothing_starts_nothing_is_left(self) -> None:
        a = FakeRuntime()
        fleet = a_fleet(a=a)
        await fleet.ensure(spec("a"))
        fleet.hold("a", "It is away.")
        assert fleet.remove("a")
        assert not fleet.remove("a")
        with pytest.raises(WorkspaceRejectedError, match="was removed") as raised:
            await fleet.ensure(spec("a"))
        assert raised.value.reason == "ClusterRemoved"
        assert await fleet.inspect(ref("a")) is None
        await fleet.stop(ref("a"))
        await fleet.delete(ref("a"))
        with pytest.raises(WorkspaceNotFoundError):
            await fleet.stats(ref("a"))
        assert (list(fleet.ids()), a.calls["stop"], a.calls["delete"]) == ([], 0, 0)

    async def test_one_that_comes_back_is_used_again_and_not_held(self) -> None:
        fleet = a_fleet(a=FakeRuntime())
        fleet.hold("a", "It is away.")
        fleet.remove("a")
        again = FakeRuntime()
        assert fleet.put("a", "a", lambda: again)
        await fleet.ensure(spec("a"))
        assert again.runs("env1")
        assert list(fleet.ids()) == ["a"]


class TestCredentials:
    async def test_new_ones_are_used_and_calls_over_the_old_go_on(self) -> None:
        old, new = SlowRuntime(), FakeRuntime()
        fleet = a_fleet(a=old)
        going = asyncio.create_task(fleet.ensure(spec("a")))
        await asyncio.wait_for(old.entered.wait(), 60)
        assert not fleet.put("a", "a", FakeRuntime)
        assert fleet.put("a", "other", lambda: new)
        await fleet.ensure(spec("a", "env2"))
        assert new.runs("env2")
        assert old.is_open
        old.let_go.set()
        assert (await going).phase is WorkspacePhase.RUNNING
        await fleet.close()
        assert (old.is_open, new.is_open) == (False, False)

    async def test_ones_that_cannot_be_read_leave_the_old_in_place(self) -> None:
        def unreadable() -> FakeRuntime:
            raise RuntimeUnavailableError("Stored under another SECRET_KEY.")

        a = FakeRuntime()
        fleet = a_fleet(a=a)
        with pytest.raises(RuntimeUnavailableError):
            fleet.put("a", "other", unreadable)
        await fleet.ensure(spec("a"))
        assert a.runs("env1")

    async def test_a_driver_is_opened_once_and_again_when_that_failed(self) -> None:
        class Moody(FakeRuntime):
            opened = 0

            async def open(self) -> None:
                self.opened += 1
                await asyncio.sleep(0)
                if self.opened == 1:
                    raise RuntimeUnavailableError("Not yet.")
                await super().open()

        moody = Moody()
        fleet = a_fleet(a=moody)
        with pytest.raises(RuntimeUnavailableError):
            await fleet.check("a")
        await asyncio.gather(*(fleet.check("a") for _ in range(5)))
        assert moody.opened == 2
