"""The cluster of a run: whatever befalls it is over at the end, and a watcher sees what it watches for."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from libs.runtime.kubernetes.options import ClusterAccess
from libs.runtime.kubernetes.runtime import KubernetesRuntime
from libs.runtime.port import RuntimeUnavailableError, WorkspaceLimits, WorkspaceRef, WorkspaceSpec
from tests.chaos.cluster import Cluster
from tests.chaos.cluster_faults import Weather
from tests.chaos.ground import Act, MissedError

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]

_GIB = 1024**3
_LIMITS = WorkspaceLimits(cpu_millis=100, memory_bytes=_GIB // 8, storage_bytes=_GIB)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("chaos") / "cluster", Weather(seed=1, errors=0.5), users=4)
    cluster.start()
    yield cluster
    cluster.stop()
    assert cluster.living() == {}


@pytest.fixture
async def driver(cluster: Cluster) -> AsyncIterator[KubernetesRuntime]:
    driver = KubernetesRuntime(ClusterAccess(path=cluster.settings["KUBECONFIG"]))
    await driver.open()
    yield driver
    await driver.close()


def spec(environment_id: str, user_id: str) -> WorkspaceSpec:
    return WorkspaceSpec(WorkspaceRef(environment_id, user_id), 1, "mine", "devpocket/python:latest", _LIMITS)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def befallen(act: Act) -> AsyncIterator[None]:
    """From when it has begun; it is cut short then, as when a run ends."""
    told: list[str] = []

    async def begun() -> bool:
        return bool(told) or doing.done()

    doing = asyncio.create_task(act.do(act, told.append))
    await until(begun)
    assert told, (act, doing)
    try:
        yield
    finally:
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)


async def test_what_runs_is_seen_and_what_is_deleted_is_gone(cluster: Cluster, driver: KubernetesRuntime) -> None:
    async def left() -> list[tuple[str, str]]:
        return sorted((thing.kind, thing.owner) for thing in await cluster.things() if thing.owner in ("e0", "u0"))

    async def nothing_is_left() -> bool:
        return not await left() and "e0" not in cluster.living()

    await driver.ensure(spec("e0", "u0"))
    assert len(cluster.living()["e0"]) == 1
    assert cluster.twice() == {}
    of_environment = [(kind, "e0") for kind in ("pods", "persistentvolumeclaims", "secrets", "configmaps")]
    assert await left() == sorted([*of_environment, ("namespaces", "u0")])
    await driver.delete(WorkspaceRef("e0", "u0"))
    await until(nothing_is_left)


async def test_a_workspace_that_runs_twice_is_seen(cluster: Cluster, driver: KubernetesRuntime) -> None:
    await driver.ensure(spec("e1", "u1"))
    await driver.ensure(spec("e1", "u2"))
    assert set(cluster.twice()) == {"e1"}
    assert [thing.owner for thing in await cluster.things() if thing.kind == "pods"] == ["e1", "e1"]
    # Whose node was lost while it ran there may run on unseen.
    first, _ = await cluster.api.list("pods")
    cluster.faults.lost_pods.add(first["metadata"]["uid"])
    assert cluster.twice() == {}
    await driver.delete(WorkspaceRef("e1", "u2"))


async def test_whatever_befalls_it_is_over_at_the_end(cluster: Cluster, driver: KubernetesRuntime) -> None:
    choose = random.Random(1)
    for make, _ in cluster.dishes():
        await _ensured(driver)
        async with befallen(make(choose)):
            pass
    await _ensured(driver)
    assert set(cluster.living()) == {"e1"}


async def test_what_goes_on_does_not_begin_again(cluster: Cluster) -> None:
    make = next(make for make, _ in cluster.dishes() if make(random.Random(1)).kind == "api away")
    act = make(random.Random(1))
    async with befallen(act):
        with pytest.raises(MissedError):
            await act.do(act, lambda _: None)
    # It is there again.
    assert await cluster.api.list("pods") is not None


async def test_bad_weather_ends(cluster: Cluster, driver: KubernetesRuntime) -> None:
    counts: Counter[str] = Counter()
    async with cluster.weather(counts):
        await _ensured(driver)
    assert set(counts) <= {f"api answer: {kind}" for kind in ("500", "503", "429", "reset", "lost_answer")}
    assert counts.total() > 0
    for _ in range(20):
        await driver.list()
    assert await cluster.api.switch("faults") == {"injected": {}}


async def _ensured(driver: KubernetesRuntime) -> None:
    """In the end; after what was done to it."""
    async with asyncio.timeout(60):
        while True:
            try:
                await driver.ensure(spec("e1", "u1"))
                return
            except RuntimeUnavailableError:
                await asyncio.sleep(0.1)
