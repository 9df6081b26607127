"""Following and resuming logs on the real drivers: processes on this machine, pods of a fake cluster."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from libs.common.contracts.identity import Plan
from libs.runtime.local.isolation import IsolationPolicy
from libs.runtime.local.runtime import LocalRuntime
from libs.runtime.port import RuntimeUnavailableError, WorkspaceRef
from services.terminal.domain import Caller, Environment
from services.terminal.logs.feed import FeedLimits, LogFeeds
from services.terminal.logs.position import Position
from services.terminal.service.logs import LogQuery, LogViewer
from tests.fakes.log_client import LogClient
from tests.fakes.log_source import TappedLogs
from tests.runtime_contract.kube import kubernetes_halves
from tests.runtime_contract.workspaces import Driver, Workspaces, make_spec

_COMMAND = "seq 100; while [ ! -e go ]; do sleep 0.02; done; seq 101 200; echo err >&2; sleep 0.05; echo the end"
_LAST = "The startup command ended with code 0."
_ALL = LogQuery(follow=True, tail=10_000)


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """A directory that other users may pass through, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="devpocket-logs-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["local", "kubernetes"])
async def runtime(request: pytest.FixtureRequest, runtime_dir: Path) -> AsyncIterator[Driver]:
    if request.param == "kubernetes":
        async with kubernetes_halves(runtime_dir) as (halves, _):
            yield cast("Driver", halves)
        return
    driver = LocalRuntime(runtime_dir, IsolationPolicy.NONE)
    await driver.open()
    yield cast("Driver", driver)
    await driver.close()


@pytest.fixture
async def workspaces(runtime: Driver) -> AsyncIterator[Workspaces]:
    made = Workspaces(runtime)
    yield made
    await made.remove_all()


@asynccontextmanager
async def viewer(feeds: LogFeeds, ref: WorkspaceRef, query: LogQuery) -> AsyncIterator[LogClient]:
    client, environment = LogClient(), Environment(ref.environment_id, ref.user_id, 1)
    looking = LogViewer(feeds, client, environment, Caller(ref.user_id, "login-1", Plan.PRO), query)
    running = asyncio.create_task(looking.run())
    try:
        yield client
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def rest(feeds: LogFeeds, ref: WorkspaceRef, query: LogQuery) -> list[dict[str, Any]]:
    """What there is now."""
    async with viewer(feeds, ref, query) as client:
        await client.until(lambda: client.code is not None)
        return client.frames


async def test_every_line_comes_once_to_all_however_often_anything_breaks(
    runtime: Driver, workspaces: Workspaces
) -> None:
    ref = await workspaces.start(make_spec(startup_command=_COMMAND))
    tapped = TappedLogs(runtime)
    feeds = LogFeeds(tapped, FeedLimits(again_seconds=0.05))
    async with viewer(feeds, ref, _ALL) as first:
        await first.until(lambda: "100" in first.lines)
        await tapped.until(lambda tapped: tapped.open == 1)
        resumed = LogQuery(follow=True, after=Position.parse(first.frames[first.lines.index("50")]["offset"]))
        async with viewer(feeds, ref, resumed) as second:
            await second.until(lambda: "100" in second.lines)
            await tapped.cut(RuntimeUnavailableError("cut"))
            await workspaces.run(ref, "touch go")
            for client in (first, second):
                await client.until(lambda: _LAST in client.lines)  # noqa: B023
    assert tapped.follows == 2
    lines = first.frames
    written = [frame["message"] for frame in lines if frame["stream"] == "stdout"]
    assert written == [*map(str, range(1, 201)), "the end"]
    assert second.frames == lines[first.lines.index("50") + 1 :]
    assert {frame["type"] for frame in first.frames + second.frames} == {"log"}
    offsets = [Position.parse(frame["offset"]) for frame in lines]
    assert offsets == sorted(set(offsets))

    assert await rest(feeds, ref, LogQuery(follow=False)) == lines
    for at in (0, 49, 99, 100, 150, len(lines) - 1):
        assert await rest(feeds, ref, LogQuery(follow=False, after=offsets[at])) == lines[at + 1 :]
        assert await rest(feeds, ref, LogQuery(follow=False, tail=at)) == lines[len(lines) - at :]
    await feeds.close()
    assert tapped.open == 0


async def test_it_goes_on_in_the_workspace_after_the_next_start(runtime: Driver, workspaces: Workspaces) -> None:
    spec = make_spec(startup_command="echo one")
    ref = await workspaces.start(spec)
    feeds = LogFeeds(runtime, FeedLimits(again_seconds=0.05))
    async with viewer(feeds, ref, _ALL) as client:
        await client.until(lambda: "one" in client.lines)
        await runtime.stop(ref)
        await workspaces.start(make_spec(ref=ref, generation=2, startup_command="echo two"))
        await client.until(lambda: "two" in client.lines)
        assert client.lines.count("one") == 1
        position = Position.parse(client.frames[client.lines.index("one")]["offset"])
        behind = client.lines[client.lines.index("one") + 1 : client.lines.index("two") + 1]
    found = await rest(feeds, ref, LogQuery(follow=False, after=position))
    assert [frame["message"] for frame in found][: len(behind)] == behind
    await feeds.close()


async def test_a_cluster_that_hangs_up_is_told_and_waited_for(runtime_dir: Path) -> None:
    async with kubernetes_halves(runtime_dir) as (halves, cluster):
        workspaces = Workspaces(cast("Driver", halves))
        ref = await workspaces.start(
            make_spec(startup_command="echo one; while [ ! -e go ]; do sleep 0.02; done; echo 2")
        )
        feeds = LogFeeds(cast("Driver", halves), FeedLimits(again_seconds=0.05))
        async with viewer(feeds, ref, _ALL) as client:
            await client.until(lambda: "one" in client.lines)
            await cluster.hang_up()
            await client.until(lambda: client.frames[-1]["type"] == "error")
            (told,) = await rest(feeds, ref, LogQuery(follow=False, tail=10))
            assert told == client.frames[-1]
            assert told["message"].endswith("the cluster your environment runs on does not answer right now")
            await cluster.listen()
            await workspaces.run(ref, "touch go")
            await client.until(lambda: "2" in client.lines)
            assert client.lines.count("one") == 1
        await feeds.close()
        await workspaces.remove_all()
