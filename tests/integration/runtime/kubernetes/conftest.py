"""The kubernetes driver on a fake cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest

from libs.runtime.kubernetes.runtime import KubernetesRuntime
from tests.fakes.kube import FakeCluster
from tests.integration.runtime.kubernetes.helpers import IMPATIENT
from tests.runtime_contract.kube import kubernetes_runtime
from tests.runtime_contract.workspaces import Driver, Workspaces

Both = tuple[KubernetesRuntime, FakeCluster]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory outside pytest's own, which is closed to other users."""
    path = Path(tempfile.mkdtemp(prefix="devpocket-kube-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def both(folder: Path) -> AsyncIterator[Both]:
    """A driver without patience, and its cluster."""
    async with kubernetes_runtime(folder, IMPATIENT) as (runtime, cluster):
        yield runtime, cluster


@pytest.fixture
def runtime(both: Both) -> KubernetesRuntime:
    """The driver."""
    return both[0]


@pytest.fixture
def cluster(both: Both) -> FakeCluster:
    """Its cluster."""
    return both[1]


@pytest.fixture
def workspaces(runtime: KubernetesRuntime) -> Workspaces:
    """Makes workspaces; the cluster goes with all of them."""
    return Workspaces(cast("Driver", runtime))
