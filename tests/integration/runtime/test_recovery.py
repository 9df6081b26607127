"""Nothing is lost, doubled or left behind when a process dies at a bad moment."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

import pytest

from libs.runtime.local.isolation import IsolationPolicy
from libs.runtime.local.processes import ProcessTable, boot_id, is_alive, wait_for_exit
from libs.runtime.local.records import RUN_FILE, RunRecord, load_run
from libs.runtime.local.runtime import LocalRuntime
from libs.runtime.port import ObservedWorkspace, WorkspacePhase, WorkspaceRef, WorkspaceSpec
from tests.runtime_contract.workspaces import (
    Driver,
    Workspaces,
    collect_logs,
    make_spec,
    next_change,
    read_all,
    until_watching,
)

_Found = TypeVar("_Found")


def namespace_inode(pid: int, kind: str = "pid") -> int | None:
    """The number that names a process's namespace."""
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return None


def run_of(runtime_dir: Path, ref: WorkspaceRef) -> RunRecord:
    run = load_run(runtime_dir / "state" / ref.environment_id)
    assert run is not None
    return run


async def eventually(look: Callable[[], Awaitable[_Found]], seconds: float = 60.0) -> _Found:
    """What `look` finds as soon as it finds something."""
    async with asyncio.timeout(seconds):
        while not (found := await look()):  # noqa: ASYNC110 - processes and files give no event
            await asyncio.sleep(0.002)
    return found


async def settled(runtime: LocalRuntime, ref: WorkspaceRef) -> ObservedWorkspace | None:
    """What is observed once the sandbox has ended."""

    async def look() -> ObservedWorkspace | None:
        observed = await runtime.inspect(ref)
        return None if observed is None or observed.phase is WorkspacePhase.RUNNING else observed

    return await eventually(look)


async def test_another_process_finds_the_running_sandbox(
    runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path
) -> None:
    spec = make_spec()
    ref = await workspaces.start(spec)
    before = run_of(runtime_dir, ref)
    await runtime.close()

    again = LocalRuntime(runtime_dir, IsolationPolicy.REQUIRE)
    await again.open()
    observed = await again.ensure(spec)
    assert observed.phase is WorkspacePhase.RUNNING
    assert run_of(runtime_dir, ref) == before
    assert (await Workspaces(again).run(ref, "echo hello"))[1] == b"hello\n"
    await again.close()
    await runtime.open()


@pytest.mark.parametrize("victim", ["shim", "init", "main"])
async def test_a_killed_sandbox_is_reported_and_can_start_again(
    runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path, victim: str
) -> None:
    spec = make_spec()
    ref = await workspaces.start(spec)
    await workspaces.run(ref, "echo kept > file")
    run = run_of(runtime_dir, ref)
    changes = runtime.watch()
    news = asyncio.ensure_future(next_change(changes, ref))
    await until_watching(cast("Driver", runtime))
    stream = await runtime.exec(ref, ["sleep", "1000"])

    os.kill({"shim": run.shim_pid, "init": run.init_pid, "main": run.main_pid}[victim], signal.SIGKILL)

    observed = await asyncio.wait_for(news, 30)
    assert observed.phase is WorkspacePhase.FAILED
    assert observed.reason == ("SupervisorLost" if victim == "shim" else "SandboxExited")
    assert observed.message
    assert await asyncio.wait_for(read_all(stream), 30) == b""
    await stream.close()
    assert await asyncio.to_thread(wait_for_exit, run.init_pid, run.init_start, 30)

    observed = await runtime.ensure(spec)
    assert observed.phase is WorkspacePhase.RUNNING
    assert (await workspaces.run(ref, "cat file"))[1] == b"kept\n"


async def test_the_reason_names_the_exit_code(runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path) -> None:
    ref = await workspaces.start()
    os.kill(run_of(runtime_dir, ref).main_pid, signal.SIGKILL)
    observed = await settled(runtime, ref)
    assert observed is not None
    assert (observed.reason, observed.message) == (
        "SandboxExited",
        "The workspace's main process ended with code 137.",
    )


async def test_nothing_survives_a_killed_shim(runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path) -> None:
    ref = await workspaces.start(make_spec(startup_command="setsid sleep 1000 & sleep 1000"))
    run = run_of(runtime_dir, ref)
    inode = namespace_inode(run.init_pid)
    network = os.stat(f"/proc/{run.init_pid}/ns/net").st_ino

    os.kill(run.shim_pid, signal.SIGKILL)

    async def nobody() -> bool:
        with ProcessTable.of_host() as table:
            pids = [info.pid for info in table.living()]
        return not [pid for pid in pids if inode == namespace_inode(pid) or network == namespace_inode(pid, "net")]

    await eventually(nobody)
    await runtime.stop(ref)
    assert [path for path in map(Path, run.cgroups) if path.exists()] == []


async def test_a_pid_that_was_used_again_is_not_the_sandbox(
    runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path
) -> None:
    spec = make_spec()
    ref = await workspaces.start(spec)
    await runtime.stop(ref)
    stranger = await asyncio.create_subprocess_exec("sleep", "1000")
    record = {
        **dict.fromkeys(("generation", "uid", "storage_bytes", "memory_bytes"), 1),
        "boot_id": boot_id(),
        "isolation": "root",
        "cgroups": [],
        "network": False,
        "shim_pid": stranger.pid,
        "init_pid": stranger.pid,
        "init_start": 1,
        "main_pid": stranger.pid,
        "started_at": 1.0,
    }
    (runtime_dir / "state" / ref.environment_id / RUN_FILE).write_text(json.dumps(record))

    observed = await runtime.inspect(ref)
    assert observed is not None
    assert observed.phase is WorkspacePhase.FAILED
    await runtime.stop(ref, grace_seconds=0)
    assert (await runtime.ensure(spec)).phase is WorkspacePhase.RUNNING
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


async def test_an_earlier_boot_is_told_apart(runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path) -> None:
    ref = await workspaces.start()
    run = run_of(runtime_dir, ref)
    path = runtime_dir / "state" / ref.environment_id / RUN_FILE
    record = json.loads(path.read_text())
    await runtime.stop(ref)
    path.write_text(json.dumps(record | {"boot_id": "another"}))

    observed = await runtime.inspect(ref)

    assert observed is not None
    assert (observed.phase, observed.reason) == (WorkspacePhase.FAILED, "HostRestarted")
    assert not is_alive(run.init_pid, run.init_start)


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"generation": 1}', "\0\0\0"])
@pytest.mark.parametrize("name", ["run.json", "spec.json", "exit.json"])
async def test_torn_records_are_survived(
    runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path, name: str, torn: str
) -> None:
    spec = make_spec()
    ref = await workspaces.start(spec)
    await runtime.stop(ref)
    (runtime_dir / "state" / ref.environment_id / name).write_text(torn)

    assert await runtime.inspect(ref) is not None
    assert len(await runtime.list()) == 1
    assert (await runtime.ensure(replace(spec, generation=2))).phase is WorkspacePhase.RUNNING
    await runtime.delete(ref)
    assert await runtime.inspect(ref) is None


async def test_a_volume_without_records_is_found_and_used(
    runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path
) -> None:
    spec = make_spec()
    workspaces.specs.append(spec)
    volume = runtime_dir / "workspaces" / spec.ref.environment_id
    volume.mkdir()
    (volume / "restored").write_text("from a backup")

    observed = await runtime.inspect(spec.ref)
    assert observed is not None
    assert observed.phase is WorkspacePhase.STOPPED
    await runtime.ensure(spec)
    code, out, _ = await workspaces.run(spec.ref, "cat restored; echo more >> restored")
    assert (code, out) == (0, b"from a backup")


def ensure_in_another_process(directory: str, spec: WorkspaceSpec) -> None:
    """One of several orchestrators that all want the same."""

    async def work() -> None:
        driver = LocalRuntime(Path(directory), IsolationPolicy.REQUIRE)
        await driver.open()
        await driver.ensure(spec)
        await driver.close()

    asyncio.run(work())


async def test_two_processes_make_one_sandbox(runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path) -> None:
    spec = make_spec(startup_command="echo started >> starts")
    workspaces.specs.append(spec)
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=ensure_in_another_process, args=(str(runtime_dir), spec)) for _ in range(3)]
    for other in others:
        other.start()
    observed = await runtime.ensure(spec)
    for other in others:
        await asyncio.to_thread(other.join, 60)

    assert [other.exitcode for other in others] == [0, 0, 0]
    assert await runtime.inspect(spec.ref) == observed
    assert len(await runtime.leftovers()) == 2  # one shim, one init
    await collect_logs(runtime.logs(spec.ref, follow=True), "The startup command ended with code 0.")
    assert (await workspaces.run(spec.ref, "cat starts"))[1] == b"started\n"


async def test_an_orchestrator_that_dies_while_starting_leaves_one_sandbox(
    runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    for delay in (0.01, 0.02, 0.03, 0.05):
        spec = make_spec()
        workspaces.specs.append(spec)
        other = context.Process(target=ensure_in_another_process, args=(str(runtime_dir), spec))
        other.start()
        state = runtime_dir / "state" / spec.ref.environment_id

        async def began(state: Path = state) -> bool:
            return await asyncio.to_thread(state.exists)

        await eventually(began)
        await asyncio.sleep(delay)
        other.kill()
        await asyncio.to_thread(other.join)

        assert (await runtime.ensure(spec)).phase is WorkspacePhase.RUNNING
        assert (await workspaces.run(spec.ref, "echo hello"))[1] == b"hello\n"
        await runtime.delete(spec.ref)
        assert await runtime.leftovers() == []


async def test_a_start_that_fails_says_why_and_can_be_repeated(
    runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path
) -> None:
    spec = make_spec()
    workspaces.specs.append(spec)
    volume = runtime_dir / "workspaces" / spec.ref.environment_id
    volume.symlink_to("/nowhere")

    with pytest.raises(Exception, match=r"could not be prepared|did not start|could not start") as caught:
        await runtime.ensure(spec)
    assert "Traceback" not in str(caught.value)

    volume.unlink()
    assert (await runtime.ensure(spec)).phase is WorkspacePhase.RUNNING


async def test_stop_all_stops_everything_and_keeps_the_files(
    runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path
) -> None:
    specs = [make_spec(startup_command="trap '' TERM HUP; sleep 1000") for _ in range(4)]
    for spec in specs:
        await workspaces.start(spec)
        await workspaces.run(spec.ref, "echo kept > file")

    async with asyncio.timeout(30):
        await runtime.stop_all(grace_seconds=0.5)

    assert await runtime.leftovers() == []
    assert {observed.phase for observed in await runtime.list()} == {WorkspacePhase.STOPPED}
    await runtime.ensure(replace(specs[0], generation=2, startup_command=None))
    assert (await workspaces.run(specs[0].ref, "cat file"))[1] == b"kept\n"


async def test_the_shim_survives_the_end_of_its_maker(
    runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path
) -> None:
    spec = make_spec()
    workspaces.specs.append(spec)
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=ensure_in_another_process, args=(str(runtime_dir), spec))
    other.start()
    await asyncio.to_thread(other.join)

    run = run_of(runtime_dir, spec.ref)
    assert os.getsid(run.shim_pid) != os.getsid(0)
    assert (await workspaces.run(spec.ref, "echo alive"))[1] == b"alive\n"


async def test_watch_sees_what_another_process_started(
    runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path
) -> None:
    spec = make_spec()
    workspaces.specs.append(spec)
    changes = runtime.watch()
    news = asyncio.ensure_future(next_change(changes, spec.ref))
    await until_watching(cast("Driver", runtime))
    other = LocalRuntime(runtime_dir, IsolationPolicy.REQUIRE)
    await other.open()
    await other.ensure(spec)
    await other.close()

    async with asyncio.timeout(30):
        assert (await news).phase is WorkspacePhase.RUNNING
        run = run_of(runtime_dir, spec.ref)
        os.kill(run.main_pid, signal.SIGKILL)
        assert (await next_change(changes, spec.ref)).phase is WorkspacePhase.FAILED


async def test_a_sandbox_whose_directory_was_removed_ends_by_itself(runtime: LocalRuntime, runtime_dir: Path) -> None:
    other = LocalRuntime(runtime_dir / "doomed", IsolationPolicy.REQUIRE)
    await other.open()
    spec = make_spec()
    await other.ensure(spec)
    run = run_of(runtime_dir / "doomed", spec.ref)
    await asyncio.to_thread(shutil.rmtree, runtime_dir / "doomed")

    assert await asyncio.to_thread(wait_for_exit, run.init_pid, run.init_start, 30)

    async def nothing_left() -> bool:
        return not any(path.exists() for path in map(Path, [f"/proc/{run.shim_pid}", *run.cgroups]))

    await eventually(nothing_left)
    await other.close()
