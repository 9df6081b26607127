"""The arithmetic of `make bench-scale`, and the runtime that does nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.common.contracts.identity import Plan
from libs.runtime.port import WorkspaceLimits, WorkspaceNotRunningError, WorkspacePhase, WorkspaceRef, WorkspaceSpec
from tests.bench.scale.noop import NoopRuntime
from tests.bench.scale.phases import lost
from tests.bench.scale.plan import Size, percentiles, steps

REF = WorkspaceRef("env1", "user1")
SPEC = WorkspaceSpec(REF, 2, "box", "image", WorkspaceLimits(1, 1, 1))


@pytest.mark.parametrize(
    ("environments", "users", "plan"),
    [(30, 30, Plan.FREE), (31, 30, Plan.STARTER), (100, 10, Plan.PRO), (101, 10, Plan.ADMIN), (1000, 10, Plan.ADMIN)],
)
def test_everybody_is_on_the_smallest_plan_that_has_room(environments: int, users: int, plan: Plan) -> None:
    assert Size(environments, users, 1).plan is plan


@pytest.mark.parametrize(("environments", "users"), [(1001, 10), (0, 1), (1, 0)])
def test_what_cannot_be_is_refused(environments: int, users: int) -> None:
    with pytest.raises(ValueError, match=r"plan allows|at least 1"):
        Size(environments, users, 1)


@pytest.mark.parametrize("environments", [1, 7, 100, 150, 2_000, 100_000])
def test_milestones_grow_and_end_with_all(environments: int) -> None:
    milestones = Size(environments, environments, 1).milestones()
    assert milestones == sorted(set(milestones))
    assert milestones[-1] == environments
    numbers = [number for step in steps(milestones) for number in step]
    assert numbers == list(range(environments))


def test_percentiles_of_nothing_and_of_one() -> None:
    assert percentiles([]) == (0.0, 0.0)
    assert percentiles([3.0]) == (3.0, 3.0)
    assert percentiles([float(n) for n in range(101)]) == (50.0, 99.0)


def test_what_is_missing_anywhere_is_named() -> None:
    count = {"listed": {"running": 10}, "filled": 5, "running_in": {"envs": 15, "terminal": 14}}
    assert lost(count, 10) == ["terminal knows 14 running, 15 should be"]
    assert lost(count, 9, unsure=1) == ["terminal knows 14 running, 15 should be"]
    assert lost(count, 9)[0] == "the API lists 10 running, 9 were accepted, and maybe 0 more"
    assert lost(count, 11, unsure=5)[0].startswith("the API lists 10 running, 11 were accepted")


class TestNoopRuntime:
    async def test_a_replica_sees_what_another_has_done_also_before_its_time(self, tmp_path: Path) -> None:
        one, other = NoopRuntime(tmp_path / "journal"), NoopRuntime(tmp_path / "journal")
        await one.open()
        await one.ensure(SPEC)
        await other.open()
        seen = await other.inspect(REF)
        assert seen is not None
        assert (seen.phase, seen.generation) == (WorkspacePhase.RUNNING, 2)
        await other.stop(REF)
        (stopped,) = await one.list()
        assert stopped.phase is WorkspacePhase.STOPPED
        with pytest.raises(WorkspaceNotRunningError):
            await one.stats(REF)
        await one.delete(REF)
        assert await other.inspect(REF) is None
        assert await other.list() == []
        for runtime in (one, other):
            await runtime.close()

    async def test_one_of_another_cluster_is_not_there(self, tmp_path: Path) -> None:
        runtime = NoopRuntime(tmp_path / "journal")
        await runtime.open()
        await runtime.ensure(SPEC)
        assert await runtime.inspect(WorkspaceRef("env1", "user1", "elsewhere")) is None
        await runtime.close()
