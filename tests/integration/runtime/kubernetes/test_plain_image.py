"""An image of somebody else: a shell, a program that ends at once, root as its user, and nobody in its /etc/passwd."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from libs.runtime.kubernetes.runtime import KubernetesRuntime
from libs.runtime.port import WorkspacePhase
from tests.fakes.kube import FakeCluster
from tests.fakes.kube.node.images import Image
from tests.fakes.kube.node.sandbox import bubblewrap
from tests.integration.runtime.kubernetes.helpers import place
from tests.runtime_contract.workspaces import Workspaces, collect_logs, make_spec, opened, read_all, read_until

pytestmark = pytest.mark.skipif(bubblewrap() is None, reason="needs a root of its own")
PLAIN = "python:3.12-slim"
SPEC = replace(make_spec(), image=PLAIN)


@pytest.fixture(autouse=True)
def plain_image(cluster: FakeCluster) -> None:
    """The cluster knows it."""
    cluster.add_image(PLAIN, Image(entrypoint=(), command=("true",), user=0, knows_user=False))


async def test_it_runs_and_its_startup_command_is_logged(runtime: KubernetesRuntime, workspaces: Workspaces) -> None:
    ref = await workspaces.start(replace(SPEC, startup_command='echo "$(id -u) $HOME $PWD"; touch made; exit 3'))
    lines = await collect_logs(runtime.logs(ref, follow=True), "The startup command ended with code 3.")
    assert [(line.stream, line.message) for line in lines] == [
        ("stdout", "1000 /workspace /workspace"),
        ("system", "The startup command ended with code 3."),
    ]
    assert (await workspaces.run(ref, "ls; echo ${DEVPOCKET_STARTUP_COMMAND-none}"))[1] == b"made\nnone\n"
    observed = await runtime.inspect(ref)
    assert observed is not None
    assert observed.phase is WorkspacePhase.RUNNING


async def test_the_terminal_is_the_best_shell_there_is(runtime: KubernetesRuntime, workspaces: Workspaces) -> None:
    path = "/opt/own/bin:/usr/bin:/bin"
    ref = await workspaces.start(replace(SPEC, variables={"PATH": path}))
    await workspaces.run(ref, "echo 'PROFILE=read; export PROFILE' > .profile")
    async with opened(await runtime.exec(ref, None, env={"PS1": "READY>"})) as stream:
        await stream.write(b'echo "<$BASH|$PROFILE|$HOME|$USER|$PWD|${PATH%%/usr*}>"; exit 4\n')
        await read_until(stream, b"|read|/workspace|dev|/workspace|/opt/own/bin:>")
        await read_all(stream)
        assert await stream.wait() == 4


@pytest.mark.parametrize("command", [None, "sleep 1000"])
async def test_it_stops_at_once(runtime: KubernetesRuntime, workspaces: Workspaces, command: str | None) -> None:
    ref = await workspaces.start(replace(SPEC, startup_command=command))
    # A first process that ignores SIGTERM lasts the whole grace.
    async with asyncio.timeout(50):
        await runtime.stop(ref, grace_seconds=60)
    observed = await runtime.inspect(ref)
    assert observed is not None
    assert observed.phase is WorkspacePhase.STOPPED


async def test_its_end_is_told(runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces) -> None:
    ref = await workspaces.start(SPEC)
    cluster.kill_main(*place(ref))
    await cluster.settle(*place(ref), phase="Failed")
    observed = await runtime.inspect(ref)
    assert observed is not None
    assert (observed.phase, observed.reason) == (WorkspacePhase.FAILED, "MainProcessFailed")
    assert (await runtime.ensure(SPEC)).phase is WorkspacePhase.RUNNING
