"""Exec where the cluster is old, silent or gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from libs.runtime.kubernetes.channels import V4
from libs.runtime.kubernetes.runtime import KubernetesRuntime
from libs.runtime.port import RuntimeUnavailableError, TerminalSize
from tests.fakes.kube import FakeCluster
from tests.integration.runtime.kubernetes.helpers import IMPATIENT
from tests.runtime_contract.kube import kubernetes_runtime
from tests.runtime_contract.test_ports import ECHO, connected, serving
from tests.runtime_contract.workspaces import (
    Driver,
    Workspaces,
    opened,
    read_all,
    read_all_errors,
    read_until,
    shell,
)


@pytest.fixture
def old_cluster(cluster: FakeCluster) -> FakeCluster:
    """It speaks v4 alone."""
    cluster.set_exec_protocols([V4])
    return cluster


@pytest.mark.usefixtures("old_cluster")
@pytest.mark.parametrize("tty", [True, False])
@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137)])
async def test_v4_tells_exit_codes(
    runtime: KubernetesRuntime, workspaces: Workspaces, command: str, code: int, tty: bool
) -> None:
    ref = await workspaces.start()
    async with opened(await runtime.exec(ref, ["sh", "-c", f"echo out; {command}"], tty=tty)) as stream:
        assert (await read_all(stream)).startswith(b"out")
        assert await stream.wait() == code


@pytest.mark.usefixtures("old_cluster")
async def test_v4_carries_input_errors_and_size(runtime: KubernetesRuntime, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    async with opened(await runtime.exec(ref, ["sh", "-c", "read a; echo $a >&2"], tty=False)) as stream:
        await stream.write(b"hello\n")
        assert await read_all_errors(stream) == b"hello\n"
        assert await stream.wait() == 0
    async with opened(await shell(cast("Driver", runtime), ref)) as stream:
        await stream.resize(TerminalSize(cols=133, rows=44))
        await stream.write(b"stty size\n")
        await read_until(stream, b"44 133")
        await stream.write_eof()
        await read_all(stream)
        assert await stream.wait() == 0


@pytest.mark.usefixtures("old_cluster")
async def test_v4_says_that_it_cannot_end_an_input(runtime: KubernetesRuntime, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    async with opened(await runtime.exec(ref, ["cat"], tty=False)) as stream:
        with pytest.raises(RuntimeUnavailableError, match="too old") as caught:
            await stream.write_eof()
        assert caught.value.reason == "ExecFailed"
        await stream.write(b"still here\n")
        await read_until(stream, b"still here\n")


@pytest.mark.usefixtures("old_cluster")
async def test_v4_leaves_no_process_behind(runtime: KubernetesRuntime, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    stream = await runtime.exec(ref, ["sh", "-c", "sleep 1234 & echo begun; wait"], tty=False)
    await read_until(stream, b"begun\n")
    await stream.close()
    async with opened(await runtime.exec(ref, ["pgrep", "-f", "[s]leep 1234"], tty=False)) as looking:
        assert await read_all(looking) == b""


@pytest.fixture
async def hasty(folder: Path) -> AsyncIterator[tuple[KubernetesRuntime, FakeCluster]]:
    """A driver that soon calls a silent connection dead."""
    async with kubernetes_runtime(folder, replace(IMPATIENT, exec_ping_s=0.05, exec_dead_s=0.3)) as both:
        yield both


@pytest.mark.parametrize("tty", [True, False])
async def test_a_stream_ends_when_its_connection_is_dead_without_a_word(
    hasty: tuple[KubernetesRuntime, FakeCluster], tty: bool
) -> None:
    runtime, cluster = hasty
    ref = await Workspaces(cast("Driver", runtime)).start()
    stream = await runtime.exec(ref, ["sh", "-c", "echo begun; exec cat"], tty=tty)
    await read_until(stream, b"\n")
    cluster.freeze()
    async with asyncio.timeout(30):
        assert await stream.read() == b""
        assert await stream.wait() == 137
    with pytest.raises(BrokenPipeError):
        await stream.write(b"anybody there?")
    cluster.thaw()
    await stream.close()
    async with opened(await runtime.exec(ref, ["pgrep", "-x", "cat"], tty=False)) as looking:
        assert await read_all(looking) == b""


async def test_so_does_a_connection_to_a_port(hasty: tuple[KubernetesRuntime, FakeCluster]) -> None:
    runtime, cluster = hasty
    driver = cast("Driver", runtime)
    ref = await Workspaces(driver).start()
    async with serving(driver, ref, ECHO, "127.0.0.1", 8123), connected(driver, ref, 8123) as stream:
        reading = asyncio.ensure_future(stream.read())
        # Three times as long as a dead connection would last.
        assert await asyncio.wait({reading}, timeout=0.9) == (set(), {reading})
        await stream.write(b"hello")
        assert await reading == b"hello"
        cluster.freeze()
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(30):
                await stream.read()
        cluster.thaw()


async def test_a_connection_to_a_port_whose_server_goes_away_is_broken(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    ref = await workspaces.start()
    driver = cast("Driver", runtime)
    program = await runtime.exec(ref, ["python3", "-c", ECHO, "127.0.0.1", "8123"], tty=False)
    await read_until(program, b"ready")
    async with connected(driver, ref, 8123) as stream:
        await stream.write(b"hello")
        assert await stream.read() == b"hello"
        reading = asyncio.ensure_future(stream.read())
        await asyncio.sleep(0)
        await cluster.hang_up()
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(30):
                await reading
        with pytest.raises(RuntimeUnavailableError) as caught:
            await runtime.connect(ref, 8123)
    assert caught.value.reason == "ClusterUnreachable"
    await cluster.listen()
    await program.close()


async def test_a_silent_process_on_a_live_connection_is_left_alone(
    hasty: tuple[KubernetesRuntime, FakeCluster],
) -> None:
    runtime, _ = hasty
    ref = await Workspaces(cast("Driver", runtime)).start()
    # Three times as long as a dead connection would last.
    async with opened(await runtime.exec(ref, ["sh", "-c", "sleep 0.9; echo done"], tty=False)) as stream:
        assert await read_all(stream) == b"done\n"
        assert await stream.wait() == 0


async def test_the_server_goes_away_in_the_middle(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    ref = await workspaces.start()
    stream = await runtime.exec(ref, ["sh", "-c", "echo before; exec cat"], tty=False)
    await read_until(stream, b"before\n")
    reading = asyncio.ensure_future(stream.read())
    failing = asyncio.ensure_future(stream.read_stderr())
    await cluster.hang_up()
    async with asyncio.timeout(30):
        assert (await reading, await failing, await stream.wait()) == (b"", b"", 137)
    with pytest.raises(BrokenPipeError):
        await stream.write(b"lost")
    await stream.write_eof()
    await stream.resize(TerminalSize())
    with pytest.raises(RuntimeUnavailableError) as caught:
        await runtime.exec(ref, ["true"], tty=False)
    assert caught.value.reason == "ClusterUnreachable"
    await cluster.listen()
    await stream.close()
    assert (await workspaces.run(ref, "pgrep -x cat"))[1] == b""
