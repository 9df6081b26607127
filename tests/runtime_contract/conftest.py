"""The drivers that the contract is held against. Another driver joins by adding its name and how to make it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from libs.runtime.local.isolation import IsolationPolicy
from libs.runtime.local.runtime import LocalRuntime
from libs.runtime.port import RuntimeUnavailableError
from tests.runtime_contract.clusters import RealCluster, chosen_cluster
from tests.runtime_contract.kube import kubernetes_halves, real_halves
from tests.runtime_contract.workspaces import Driver, Workspaces

_POLICIES = {"local": IsolationPolicy.REQUIRE, "local-plain": IsolationPolicy.NONE}


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """A directory that the users inside workspaces may pass through, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="devpocket-runtime-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def real_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster | None]:
    """The real cluster that was asked for, if any."""
    with chosen_cluster(tmp_path_factory.mktemp("images")) as cluster:
        yield cluster


@pytest.fixture(params=[*sorted(_POLICIES), "kubernetes"])
async def runtime(request: pytest.FixtureRequest, runtime_dir: Path) -> AsyncIterator[Driver]:
    """One driver, open, on a directory or a cluster of its own."""
    if request.param == "kubernetes":
        real: RealCluster | None = request.getfixturevalue("real_cluster")
        if real is not None:
            async with real_halves(real) as halves:
                yield cast("Driver", halves)
        else:
            async with kubernetes_halves(runtime_dir) as (halves, _):
                yield cast("Driver", halves)
        return
    async with _local_runtime(runtime_dir, _POLICIES[request.param]) as local:
        yield cast("Driver", local)


@asynccontextmanager
async def _local_runtime(directory: Path, policy: IsolationPolicy) -> AsyncIterator[LocalRuntime]:
    driver = LocalRuntime(directory, policy)
    try:
        await driver.open()
    except RuntimeUnavailableError as error:
        pytest.skip(f"no sandbox can be made here: {error}")
    yield driver
    await driver.close()


@pytest.fixture
async def workspaces(runtime: Driver) -> AsyncIterator[Workspaces]:
    """Workspaces of that driver, removed after the test."""
    made = Workspaces(runtime)
    yield made
    await made.remove_all()
