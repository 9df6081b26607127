"""Limits hold, and the log says when they bite."""

from __future__ import annotations

import asyncio

import pytest

from libs.runtime.local.cgroups import MAX_PROCESSES, detect
from libs.runtime.local.runtime import LocalRuntime
from libs.runtime.port import WorkspacePhase
from tests.runtime_contract.workspaces import MIB, Workspaces, collect_logs, make_spec

# tail keeps what it may have to print.
HOG = "head -c 300000000 /dev/zero | tail -c 250000000 >/dev/null"


@pytest.fixture(autouse=True)
def cgroups_exist() -> None:
    """Skips, with the reason, where limits are only per process."""
    if detect() is None:
        pytest.skip("needs cgroups that can be written")


async def test_a_memory_hog_is_ended_and_the_log_says_why(runtime: LocalRuntime, workspaces: Workspaces) -> None:
    ref = await workspaces.start(make_spec(memory_bytes=64 * MIB))

    await workspaces.run(ref, HOG)

    lines = runtime.logs(ref, follow=True)
    async with asyncio.timeout(30):
        async for line in lines:
            if line.message.startswith("OOMKilled"):
                break
    assert "64 MiB" in line.message
    assert line.stream == "system"
    observed = await runtime.inspect(ref)
    assert observed is not None
    assert observed.phase is WorkspacePhase.RUNNING
    assert (await workspaces.run(ref, "echo fine"))[1] == b"fine\n"


async def test_files_in_tmp_count_as_memory(workspaces: Workspaces) -> None:
    ref = await workspaces.start(make_spec(memory_bytes=64 * MIB))
    code, _, _ = await workspaces.run(ref, "head -c 200000000 /dev/zero > /tmp/big")
    assert code != 0
    assert (await workspaces.run(ref, "rm -f /tmp/big; echo fine"))[1] == b"fine\n"


async def test_a_fork_bomb_stays_inside(runtime: LocalRuntime, workspaces: Workspaces) -> None:
    ref, neighbour = await workspaces.start(), await workspaces.start()
    bomb = await runtime.exec(ref, ["bash", "-c", "f() { f | f & }; f; sleep 1000"], tty=False)
    await asyncio.sleep(1)

    assert (await workspaces.run(neighbour, "ls /proc | grep -c '^[0-9]*$'"))[0] == 0
    async with asyncio.timeout(60):
        await runtime.stop(ref, grace_seconds=0.2)
        await bomb.close()
    assert await runtime.leftovers() != []  # the neighbour's
    observed = await runtime.inspect(ref)
    assert observed is not None
    assert observed.phase is WorkspacePhase.STOPPED


async def test_the_number_of_processes_is_bounded(workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    many = f"i=0; while [ $i -lt {MAX_PROCESSES * 2} ]; do sleep 1000 & i=$((i+1)); done"
    # The shell that is refused a process ends; what counts them comes by another way in.
    crowd = await workspaces.runtime.exec(ref, ["sh", "-c", f"{many}; sleep 1000"], tty=False)
    await crowd.wait()
    _, out, _ = await workspaces.run(ref, "set -- /proc/[0-9]*; echo $#")
    assert MAX_PROCESSES // 2 < int(out) <= MAX_PROCESSES + 10
    await crowd.close()


async def test_cpu_is_shared_out(workspaces: Workspaces) -> None:
    spec = make_spec()
    ref = await workspaces.start(spec)
    spin = "(while [ $(date +%s) -lt $end ]; do :; done) &"
    command = f"end=$(($(date +%s)+2)); {spin} {spin} wait"
    await workspaces.runtime.stats(ref)
    await workspaces.run(ref, command)
    sample = await workspaces.runtime.stats(ref)
    assert sample.cpu_millis <= spec.limits.cpu_millis * 1.3


async def test_one_file_is_no_larger_than_the_storage(workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    code, _, _ = await workspaces.run(ref, f"truncate -s {2048 * MIB} too-large")
    assert code != 0
    assert (await workspaces.run(ref, f"truncate -s {512 * MIB} fits"))[0] == 0


async def test_the_startup_command_is_limited_as_well(runtime: LocalRuntime, workspaces: Workspaces) -> None:
    ref = await workspaces.start(make_spec(memory_bytes=64 * MIB, startup_command=f"{HOG}; echo after"))
    lines = await collect_logs(runtime.logs(ref, follow=True), "The startup command ended with code 0.")
    assert any(line.message.startswith("OOMKilled") for line in lines)
