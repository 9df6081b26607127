"""The lifecycle half of the port: what every driver must do."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from libs.runtime.port import (
    WorkspaceNotFoundError,
    WorkspaceNotRunningError,
    WorkspacePhase,
    WorkspaceRef,
    WorkspaceRejectedError,
    WorkspaceRuntime,
)
from tests.runtime_contract.workspaces import (
    Driver,
    Workspaces,
    collect_logs,
    make_spec,
    next_change,
    opened,
    until_watching,
)

NOBODY = WorkspaceRef("env-that-never-was", "user-1")


async def test_the_driver_is_a_workspace_runtime(runtime: Driver) -> None:
    assert isinstance(runtime, WorkspaceRuntime)


async def test_ensure_makes_a_workspace_run(runtime: Driver, workspaces: Workspaces) -> None:
    spec = make_spec(generation=7)
    workspaces.specs.append(spec)

    observed = await runtime.ensure(spec)

    assert (observed.ref, observed.generation, observed.phase) == (spec.ref, 7, WorkspacePhase.RUNNING)
    assert observed.started_at is not None
    assert await runtime.inspect(spec.ref) == observed
    assert observed in await runtime.list()


async def test_ensure_leaves_the_same_generation_alone(runtime: Driver, workspaces: Workspaces) -> None:
    spec = make_spec()
    ref = await workspaces.start(spec)
    before = await runtime.inspect(ref)
    await workspaces.run(ref, "touch /tmp/still-here")

    assert await runtime.ensure(spec) == before
    assert (await workspaces.run(ref, "ls /tmp/still-here"))[0] == 0


async def test_ensure_replaces_an_older_generation_and_keeps_the_files(runtime: Driver, workspaces: Workspaces) -> None:
    spec = make_spec(variables={"COLOUR": "red"})
    ref = await workspaces.start(spec)
    await workspaces.run(ref, "echo mine > file; sleep 1000 &")

    observed = await runtime.ensure(replace(spec, generation=2, variables={"COLOUR": "blue"}))

    assert (observed.generation, observed.phase) == (2, WorkspacePhase.RUNNING)
    code, out, _ = await workspaces.run(ref, "cat file; echo $COLOUR")
    assert (code, out) == (0, b"mine\nblue\n")


async def test_a_late_ensure_of_an_old_generation_changes_nothing(runtime: Driver, workspaces: Workspaces) -> None:
    spec = make_spec(generation=5)
    ref = await workspaces.start(spec)
    before = await runtime.inspect(ref)

    assert await runtime.ensure(replace(spec, generation=4)) == before


async def test_concurrent_ensures_make_one_workspace(runtime: Driver, workspaces: Workspaces) -> None:
    spec = make_spec()
    workspaces.specs.append(spec)

    answers = await asyncio.gather(*(runtime.ensure(spec) for _ in range(5)))

    assert len({answer.started_at for answer in answers}) == 1


async def test_stop_keeps_the_volume_and_start_finds_it(runtime: Driver, workspaces: Workspaces) -> None:
    spec = make_spec()
    ref = await workspaces.start(spec)
    await workspaces.run(ref, "mkdir -p a/b && echo kept > a/b/file")

    await runtime.stop(ref)
    stopped = await runtime.inspect(ref)
    assert stopped is not None
    assert (stopped.phase, stopped.started_at) == (WorkspacePhase.STOPPED, None)
    with pytest.raises(WorkspaceNotRunningError):
        await runtime.exec(ref, ["true"])
    with pytest.raises(WorkspaceNotRunningError):
        await runtime.stats(ref)

    await runtime.ensure(replace(spec, generation=2))
    assert (await workspaces.run(ref, "cat a/b/file"))[1] == b"kept\n"


async def test_stop_asks_politely_first(runtime: Driver, workspaces: Workspaces) -> None:
    spec = make_spec(
        startup_command="trap 'echo goodbye > said; exit 0' TERM; echo listening; while :; do sleep 0.05; done"
    )
    ref = await workspaces.start(spec)
    await collect_logs(runtime.logs(ref, follow=True), "listening")

    await runtime.stop(ref, grace_seconds=30)

    await runtime.ensure(replace(spec, generation=2, startup_command=None))
    assert (await workspaces.run(ref, "cat said"))[1] == b"goodbye\n"


async def test_stop_ends_what_does_not_listen(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    deaf = "trap '' HUP TERM INT; exec setsid sh -c 'echo > deaf; exec sleep 1000'"
    await workspaces.run(ref, f"({deaf}) >/dev/null 2>&1 & until [ -e deaf ]; do sleep 0.02; done")

    async with asyncio.timeout(30):
        await runtime.stop(ref, grace_seconds=0.5)

    stopped = await runtime.inspect(ref)
    assert stopped is not None
    assert stopped.phase is WorkspacePhase.STOPPED


async def test_stop_and_delete_may_be_repeated_and_need_nothing(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()

    for _ in range(2):
        await runtime.stop(ref)
    for _ in range(2):
        await runtime.delete(ref)
    await runtime.stop(NOBODY)
    await runtime.delete(NOBODY)

    assert await runtime.inspect(ref) is None
    assert await runtime.inspect(NOBODY) is None
    assert await runtime.list() == []
    with pytest.raises(WorkspaceNotFoundError):
        await runtime.exec(ref, ["true"])


async def test_delete_removes_what_resists(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    await workspaces.run(
        ref,
        "mkdir -p locked/inner && touch locked/inner/file && ln -s / root-link && mkfifo pipe && "
        "chmod 000 locked/inner && chmod 500 locked && printf x > \"$(printf 'odd\\nname')\"; "
        "(while :; do date > busy-$$ 2>/dev/null; done) >/dev/null 2>&1 &",
    )

    await runtime.delete(ref)

    assert await runtime.inspect(ref) is None
    assert await runtime.list() == []


async def test_delete_then_ensure_starts_empty(runtime: Driver, workspaces: Workspaces) -> None:
    spec = make_spec()
    ref = await workspaces.start(spec)
    await workspaces.run(ref, "touch leftover")

    await runtime.delete(ref)
    await runtime.ensure(replace(spec, generation=9))

    assert (await workspaces.run(ref, "test -e leftover"))[0] == 1


async def test_list_knows_every_phase(runtime: Driver, workspaces: Workspaces) -> None:
    running, stopped = await workspaces.start(), await workspaces.start()
    await runtime.stop(stopped)

    phases = {observed.ref: observed.phase for observed in await runtime.list()}

    assert phases == {running: WorkspacePhase.RUNNING, stopped: WorkspacePhase.STOPPED}


async def test_watch_tells_of_starts_and_stops(runtime: Driver, workspaces: Workspaces) -> None:
    changes = runtime.watch()
    spec = make_spec()
    news = asyncio.ensure_future(next_change(changes, spec.ref))
    await until_watching(runtime)
    await workspaces.start(spec)

    async def until(wanted: WorkspacePhase, phase: WorkspacePhase | None = None) -> None:
        while phase is not wanted:
            phase = (await next_change(changes, spec.ref)).phase
            assert phase is not WorkspacePhase.FAILED

    async with asyncio.timeout(30):
        await until(WorkspacePhase.RUNNING, (await news).phase)
        await runtime.stop(spec.ref)
        await until(WorkspacePhase.STOPPED)


async def test_stats_measure_work(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    await runtime.stats(ref)
    async with opened(await runtime.exec(ref, ["sh", "-c", "while :; do :; done"], tty=False)), asyncio.timeout(30):
        await asyncio.sleep(0.2)
        while (sample := await runtime.stats(ref)).cpu_millis <= 100:  # noqa: ASYNC110
            await asyncio.sleep(0.2)

    assert sample.memory_bytes > 100_000
    assert sample.sampled_at.tzinfo is not None


async def test_stats_count_storage(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    await workspaces.run(ref, "head -c 5000000 /dev/urandom > big")

    assert (await runtime.stats(ref)).storage_bytes >= 5_000_000


async def test_stats_of_a_stranger(runtime: Driver) -> None:
    with pytest.raises((WorkspaceNotFoundError, WorkspaceNotRunningError)):
        await runtime.stats(NOBODY)


@pytest.mark.parametrize("bad", ["../evil", "a/b", "", ".", "..", "a\0b", "-rf", "x" * 200, "a b"])
async def test_ids_that_are_no_names_are_refused(runtime: Driver, bad: str) -> None:
    ref = WorkspaceRef(bad, "user-1")
    with pytest.raises(WorkspaceRejectedError):
        await runtime.ensure(make_spec(ref=ref))
    with pytest.raises(WorkspaceRejectedError):
        await runtime.delete(ref)
    with pytest.raises(WorkspaceRejectedError):
        await runtime.exec(ref, ["true"])


@pytest.mark.parametrize("variables", [{"A B": "x"}, {"X=Y": "z"}, {"OK": "a\0b"}, {"1A": "x"}, {"BIG": "x" * 200_000}])
async def test_variables_that_cannot_be_are_refused(
    runtime: Driver, workspaces: Workspaces, variables: dict[str, str]
) -> None:
    spec = make_spec(variables=variables)
    workspaces.specs.append(spec)
    with pytest.raises(WorkspaceRejectedError):
        await runtime.ensure(spec)
