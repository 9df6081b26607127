"""Drivers by cluster: made at once, opened at their first use, kept for what still runs through them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import cast

import pytest

from libs.runtime.fleet import Fleet, FleetExec
from libs.runtime.port import (
    ExecRuntime,
    ExecStream,
    LogLine,
    RuntimeUnavailableError,
    TerminalSize,
    WorkspaceRef,
)
from tests.fakes.no_ports import NoPorts

_LINE = LogLine(datetime(2026, 11, 25, tzinfo=UTC), "stdout", "a line")


class FakeDriver(NoPorts):
    """Counts what is done to it. `away`: what `open` raises; `gate`: what it waits for."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed = 0
        self.away: Exception | None = None
        self.opening = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.argvs: list[Sequence[str] | None] = []
        self.following = 0

    async def open(self) -> None:
        self.opened += 1
        self.opening.set()
        await self.gate.wait()
        if self.away is not None:
            raise self.away

    async def close(self) -> None:
        self.closed += 1

    async def exec(
        self,
        ref: WorkspaceRef,
        argv: Sequence[str] | None = None,
        *,
        tty: bool = True,
        size: TerminalSize = TerminalSize(),  # noqa: B008 - frozen
        env: Mapping[str, str] | None = None,
    ) -> ExecStream:
        self.argvs.append(argv)
        return cast("ExecStream", object())

    async def logs(
        self, ref: WorkspaceRef, *, follow: bool = False, tail: int | None = None, since: datetime | None = None
    ) -> AsyncGenerator[LogLine]:
        self.following += 1
        try:
            while True:
                yield _LINE
                if not follow:
                    return
        finally:
            self.following -= 1


@pytest.fixture
def fleet() -> Fleet[FakeDriver]:
    return Fleet()


def put(fleet: Fleet[FakeDriver], cluster: str, made_from: object = None) -> FakeDriver:
    driver = FakeDriver()
    assert fleet.put(cluster, made_from, lambda: driver)
    return driver


def never() -> FakeDriver:
    raise AssertionError("made without need")


class TestFinding:
    async def test_each_cluster_has_its_own(self, fleet: Fleet[FakeDriver]) -> None:
        here, there = put(fleet, "here"), put(fleet, "there")
        assert await fleet.driver("here") is here
        assert await fleet.driver("there") is there

    async def test_an_unknown_one_is_unavailable_and_named(self, fleet: Fleet[FakeDriver]) -> None:
        put(fleet, "here")
        with pytest.raises(RuntimeUnavailableError, match="'there'") as caught:
            await fleet.driver("there")
        assert caught.value.reason == "ClusterUnknown"
        assert "there" not in fleet
        assert "here" in fleet

    async def test_it_is_opened_at_the_first_use_and_once(self, fleet: Fleet[FakeDriver]) -> None:
        driver = put(fleet, "here")
        assert driver.opened == 0
        driver.gate.clear()
        asking = [asyncio.create_task(fleet.driver("here")) for _ in range(3)]
        await driver.opening.wait()
        driver.gate.set()
        assert await asyncio.gather(*asking) == [driver] * 3
        assert driver.opened == 1

    async def test_one_that_cannot_be_opened_is_tried_again(self, fleet: Fleet[FakeDriver]) -> None:
        driver = put(fleet, "here")
        driver.away = RuntimeUnavailableError("not now")
        with pytest.raises(RuntimeUnavailableError, match="not now"):
            await fleet.driver("here")
        driver.away = None
        assert await fleet.driver("here") is driver

    async def test_one_that_is_slow_to_open_keeps_nobody_from_another(self, fleet: Fleet[FakeDriver]) -> None:
        slow, quick = put(fleet, "slow"), put(fleet, "quick")
        slow.gate.clear()
        waiting = asyncio.create_task(fleet.driver("slow"))
        await slow.opening.wait()
        assert await fleet.driver("quick") is quick
        assert not waiting.done()
        slow.gate.set()
        assert await waiting is slow


class TestReplacing:
    async def test_the_same_credentials_are_the_same_driver(self, fleet: Fleet[FakeDriver]) -> None:
        driver = put(fleet, "here", "a")
        assert not fleet.put("here", "a", never)
        assert await fleet.driver("here") is driver

    async def test_other_credentials_make_another_and_the_old_one_stays_open(self, fleet: Fleet[FakeDriver]) -> None:
        old = put(fleet, "here", "a")
        await fleet.driver("here")
        new = put(fleet, "here", "b")
        assert await fleet.driver("here") is new
        assert old.closed == 0

    async def test_what_cannot_be_made_replaces_nothing(self, fleet: Fleet[FakeDriver]) -> None:
        old = put(fleet, "here", "a")

        def fails() -> FakeDriver:
            raise RuntimeUnavailableError("sealed with another key")

        with pytest.raises(RuntimeUnavailableError, match="another key"):
            fleet.put("here", "b", fails)
        assert await fleet.driver("here") is old

    async def test_a_dropped_one_is_found_no_longer_and_may_come_back(self, fleet: Fleet[FakeDriver]) -> None:
        old = put(fleet, "here", "a")
        await fleet.driver("here")
        fleet.drop("here")
        fleet.drop("here")
        with pytest.raises(RuntimeUnavailableError):
            await fleet.driver("here")
        assert old.closed == 0
        new = put(fleet, "here", "a")
        assert await fleet.driver("here") is new


class TestClosing:
    async def test_all_that_were_opened_are_closed_once(self, fleet: Fleet[FakeDriver]) -> None:
        replaced, dropped = put(fleet, "here", "a"), put(fleet, "there")
        await asyncio.gather(fleet.driver("here"), fleet.driver("there"))
        current, unused = put(fleet, "here", "b"), put(fleet, "nobody-asked")
        fleet.drop("there")
        await fleet.driver("here")
        await fleet.close()
        await fleet.close()
        assert [driver.closed for driver in (replaced, dropped, current, unused)] == [1, 1, 1, 0]

    async def test_one_that_failed_to_open_lets_go_of_what_it_holds(self, fleet: Fleet[FakeDriver]) -> None:
        failed, failed_and_dropped = put(fleet, "here"), put(fleet, "there")
        for cluster, driver in (("here", failed), ("there", failed_and_dropped)):
            driver.away = RuntimeUnavailableError("no")
            with pytest.raises(RuntimeUnavailableError):
                await fleet.driver(cluster)
        fleet.drop("there")
        await fleet.close()
        assert (failed.closed, failed_and_dropped.closed) == (1, 1)

    async def test_one_that_fails_to_close_keeps_no_other_open(self, fleet: Fleet[FakeDriver]) -> None:
        class Stuck(FakeDriver):
            async def close(self) -> None:
                raise OSError("stuck")

        fleet.put("stuck", None, Stuck)
        driver = put(fleet, "here")
        await asyncio.gather(fleet.driver("stuck"), fleet.driver("here"))
        await fleet.close()
        assert driver.closed == 1


@pytest.fixture
def asked() -> list[str]:
    """Clusters that `refresh` was called with."""
    return []


MakeExec = Callable[[dict[str, FakeDriver]], FleetExec]


@pytest.fixture
def make_exec(asked: list[str]) -> MakeExec:
    def make(drivers: dict[str, FakeDriver]) -> FleetExec:
        fleet: Fleet[ExecRuntime] = Fleet()

        async def refresh(cluster: str) -> None:
            asked.append(cluster)
            if cluster == "away":
                raise RuntimeUnavailableError("it is away", reason="ClusterUnreachable")
            if cluster in drivers:
                driver = drivers[cluster]
                fleet.put(cluster, id(driver), lambda: driver)

        return FleetExec(fleet, refresh)

    return make


class TestExec:
    async def test_the_workspaces_cluster_decides(self, make_exec: MakeExec, asked: list[str]) -> None:
        drivers = {"default": FakeDriver(), "second": FakeDriver()}
        runtime = make_exec(drivers)
        assert isinstance(runtime, ExecRuntime)
        await runtime.open()
        await runtime.exec(WorkspaceRef("e1", "u", "second"), ["on-second"])
        await runtime.exec(WorkspaceRef("e2", "u"), ["on-default"])
        assert [line async for line in runtime.logs(WorkspaceRef("e1", "u", "second"))] == [_LINE]
        assert drivers["second"].argvs == [["on-second"]]
        assert drivers["default"].argvs == [["on-default"]]
        assert asked == ["second", "default", "second"]

    async def test_news_that_forbid_it_are_passed_on(self, make_exec: MakeExec) -> None:
        runtime = make_exec({"away": (driver := FakeDriver())})
        with pytest.raises(RuntimeUnavailableError, match="it is away"):
            await runtime.exec(WorkspaceRef("e", "u", "away"))
        with pytest.raises(RuntimeUnavailableError, match="it is away"):
            await anext(runtime.logs(WorkspaceRef("e", "u", "away")))
        assert driver.opened == 0

    async def test_a_log_that_is_followed_goes_on_through_a_replaced_driver(self, make_exec: MakeExec) -> None:
        drivers = {"second": (old := FakeDriver())}
        runtime, ref = make_exec(drivers), WorkspaceRef("e", "u", "second")
        async with aclosing(runtime.logs(ref, follow=True)) as lines:
            await anext(lines)
            drivers["second"] = new = FakeDriver()
            await runtime.exec(ref, ["after"])
            assert (old.argvs, new.argvs) == ([], [["after"]])
            assert await anext(lines) == _LINE
            assert (old.following, new.following, old.closed) == (1, 0, 0)
        await runtime.close()
        assert (old.closed, new.closed) == (1, 1)

    async def test_leaving_a_log_ends_the_drivers_too(self, make_exec: MakeExec) -> None:
        runtime = make_exec({"second": (driver := FakeDriver())})
        async with aclosing(runtime.logs(WorkspaceRef("e", "u", "second"), follow=True)) as lines:
            await anext(lines)
            assert driver.following == 1
        assert driver.following == 0
