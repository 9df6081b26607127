"""Somebody with kubectl: a pod deleted by hand is back, a deleted volume is an error, a deletion leaves nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from libs.common.contracts.events import EnvironmentCreated, EnvironmentDeleteRequested, EnvironmentStartRequested
from libs.common.ids import new_id
from libs.runtime.kubernetes.options import ClusterAccess
from libs.runtime.kubernetes.runtime import KubernetesRuntime
from libs.runtime.port import WorkspaceRef
from services.orchestrator.main import create_app
from services.orchestrator.settings import OrchestratorSettings
from tests.fakes.kube import FakeCluster
from tests.fakes.kube.resources import CLAIMS, NAMESPACES, PODS
from tests.integration.orchestrator.conftest import Envs, name_of
from tests.integration.runtime.kubernetes.helpers import find, leftovers, place
from tests.support.app import running_app
from tests.support.tokens import TestIssuer
from tests.unit.orchestrator.memory import template, wish


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="devpocket-hand-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def cluster(folder: Path) -> AsyncIterator[FakeCluster]:
    async with FakeCluster(folder=folder) as cluster:
        yield cluster


@pytest.fixture
async def ref(
    cluster: FakeCluster, settings: OrchestratorSettings, issuer: TestIssuer, envs: Envs
) -> AsyncIterator[WorkspaceRef]:
    """A running environment of an orchestrator that looks at everything twice a second."""
    driver = KubernetesRuntime(ClusterAccess(kubeconfig=cluster.kubeconfig))
    quick = settings.model_copy(update={"resync_interval_seconds": 0.5})
    async with running_app(create_app(quick, keys=issuer, runtime=driver)):
        ref = WorkspaceRef(new_id(), "user1")
        await say(envs, EnvironmentCreated, ref, 1)
        await envs.reports(ref.environment_id, "running")
        yield ref


async def say(envs: Envs, kind: type, ref: WorkspaceRef, generation: int) -> None:
    spec = template(image="devpocket/python:latest")
    await envs.say(wish(kind, environment_id=ref.environment_id, generation=generation, spec=spec))


async def test_a_pod_is_back_and_the_events_tell_why(cluster: FakeCluster, envs: Envs, ref: WorkspaceRef) -> None:
    before, volume = find(cluster, PODS, ref), find(cluster, CLAIMS, ref)
    cluster.api.delete(PODS, *place(ref), {})
    reports = await envs.reports(ref.environment_id, "running", times=2)
    assert [name_of(report) for report in reports] == ["provisioning", "running", "lost", "running"]
    assert reports[2].data["reason"] in {"PodDeleted", "PodTerminating"}
    after = find(cluster, PODS, ref)
    assert before is not None
    assert after is not None
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert find(cluster, CLAIMS, ref) == volume


async def test_a_volume_is_an_error_and_never_a_new_one(cluster: FakeCluster, envs: Envs, ref: WorkspaceRef) -> None:
    cluster.api.delete(CLAIMS, *place(ref), {})
    failed = (await envs.reports(ref.environment_id, "failed"))[-1]
    assert failed.data["reason"] == "VolumeTerminating"
    # The only way to the files is left open.
    assert find(cluster, PODS, ref) is not None
    cluster.api.delete(PODS, *place(ref), {})
    await say(envs, EnvironmentStartRequested, ref, 2)
    failed = (await envs.reports(ref.environment_id, "failed", times=2))[-1]
    assert failed.data["reason"] in {"VolumeTerminating", "VolumeLost"}
    claim = find(cluster, CLAIMS, ref)
    assert claim is None or claim["metadata"].get("deletionTimestamp")


async def test_a_deletion_leaves_nothing(cluster: FakeCluster, envs: Envs, ref: WorkspaceRef) -> None:
    await say(envs, EnvironmentDeleteRequested, ref, 2)
    await envs.reports(ref.environment_id, "deleted")
    assert leftovers(cluster, ref) == []
    namespace = cluster.store.get(NAMESPACES, "", place(ref)[0])
    assert namespace is None or namespace["metadata"].get("deletionTimestamp")
