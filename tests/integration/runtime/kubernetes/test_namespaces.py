"""A user's namespace: fenced in, shared by their environments, gone with the last one."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from libs.runtime.kubernetes import settling
from libs.runtime.kubernetes.api import KubeApi
from libs.runtime.kubernetes.names import namespace_of
from libs.runtime.kubernetes.options import ClusterAccess, KubernetesOptions
from libs.runtime.kubernetes.runtime import KubernetesRuntime
from libs.runtime.port import WorkspacePhase, WorkspaceRef, WorkspaceRejectedError
from tests.fakes.kube import FakeCluster
from tests.fakes.kube.resources import (
    LIMIT_RANGES,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    QUOTAS,
    SERVICE_ACCOUNTS,
)
from tests.integration.runtime.kubernetes.helpers import IMPATIENT, leftovers, of_user, place, until_namespace_is_gone
from tests.runtime_contract.kube import kubernetes_runtime
from tests.runtime_contract.workspaces import Driver, Workspaces, make_spec


async def test_the_namespace_is_fenced_in_before_anything_runs(cluster: FakeCluster, workspaces: Workspaces) -> None:
    seen_at_first_pod: list[int] = []

    def look(change: object) -> None:
        pods = cluster.store.list(PODS, namespace)
        if pods and not seen_at_first_pod:
            fences = (QUOTAS, LIMIT_RANGES, NETWORK_POLICIES, NETWORK_POLICIES)
            seen_at_first_pod.extend(len(cluster.store.list(resource, namespace)) for resource in fences)

    namespace = namespace_of("devpocket", "user-1")
    cluster.store.listen(look)
    await workspaces.start()
    assert seen_at_first_pod == [1, 1, 2, 2]
    accounts = {item["metadata"]["name"]: item for item in cluster.store.list(SERVICE_ACCOUNTS, namespace)}
    assert accounts["workspace"]["automountServiceAccountToken"] is False
    labels = cluster.api.get(NAMESPACES, "", namespace)["metadata"]["labels"]
    assert labels["app.kubernetes.io/managed-by"] == "devpocket"


async def test_the_namespace_goes_with_the_last_environment_and_not_before(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    first, second = await workspaces.start(), await workspaces.start()
    stranger = make_spec()
    await workspaces.start(replace(stranger, ref=of_user("user-2", stranger.ref)))

    await runtime.delete(first)
    assert leftovers(cluster, first) == []
    assert (await workspaces.run(second, "echo fine"))[1] == b"fine\n"
    await runtime.delete(second)

    await until_namespace_is_gone(cluster, "user-1")
    assert [observed.ref.user_id for observed in await runtime.list()] == ["user-2"]


async def test_a_namespace_that_goes_is_waited_for_and_made_anew(
    runtime: KubernetesRuntime, workspaces: Workspaces
) -> None:
    for _ in range(3):
        ref = await workspaces.start()
        await runtime.delete(ref)
    spec = make_spec()
    assert (await runtime.ensure(spec)).phase is WorkspacePhase.RUNNING


async def test_making_and_removing_at_the_same_time_never_takes_a_running_workspace(
    runtime: KubernetesRuntime, workspaces: Workspaces
) -> None:
    previous = await workspaces.start()
    for number in range(8):
        spec = make_spec()

        async def make(pause: float) -> None:
            await asyncio.sleep(pause)
            await runtime.ensure(spec)  # noqa: B023 - awaited within the round

        await asyncio.gather(runtime.delete(previous), make(number * 0.004))
        observed = await runtime.inspect(spec.ref)
        assert observed is not None
        assert observed.phase is WorkspacePhase.RUNNING
        assert (await workspaces.run(spec.ref, "echo here"))[1] == b"here\n"
        previous = spec.ref


async def test_a_namespace_that_is_somebody_elses_is_not_used(runtime: KubernetesRuntime, cluster: FakeCluster) -> None:
    name = namespace_of("devpocket", "user-1")
    cluster.api.create(NAMESPACES, "", {"metadata": {"name": name, "annotations": {"devpocket.io/user": "mallory"}}})
    with pytest.raises(WorkspaceRejectedError) as caught:
        await runtime.ensure(make_spec())
    assert caught.value.reason == "NamespaceTaken"
    await runtime.delete(WorkspaceRef("env-that-never-was", "user-1"))
    assert cluster.store.get(NAMESPACES, "", name) is not None


async def test_changed_policies_reach_namespaces_that_are_there(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    spec = make_spec()
    await workspaces.start(spec)
    changed = KubernetesRuntime(
        ClusterAccess(kubeconfig=cluster.kubeconfig), KubernetesOptions(blocked_cidrs=("203.0.113.0/24",))
    )
    await changed.open()
    await changed.ensure(replace(spec, generation=2))
    await changed.close()

    policies = cluster.store.list(NETWORK_POLICIES, namespace_of("devpocket", "user-1"))
    assert "203.0.113.0/24" in str(policies)


async def test_a_full_quota_is_told_and_room_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = {**KubernetesOptions().namespace_quota, "pods": "1"}
    async with kubernetes_runtime(folder, replace(IMPATIENT, namespace_quota=quota)) as (runtime, _):
        workspaces = Workspaces(cast("Driver", runtime))
        first = await workspaces.start()
        second = make_spec()
        with monkeypatch.context() as impatient:
            impatient.setattr(settling, "_SETTLE_S", 0.2)
            with pytest.raises(WorkspaceRejectedError) as caught:
                await runtime.ensure(second)
        assert caught.value.reason == "QuotaExceeded"
        assert "exceeded quota" in str(caught.value)

        await runtime.stop(first)
        assert (await runtime.ensure(second)).phase is WorkspacePhase.RUNNING


async def test_another_installation_in_the_same_cluster_is_not_seen(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    access = ClusterAccess(kubeconfig=cluster.kubeconfig)
    neighbour = KubernetesRuntime(access, replace(IMPATIENT, namespace_prefix="devpocket-two"))
    await neighbour.open()
    async with aclosing(runtime.watch()) as changes:  # type: ignore[type-var]
        first = asyncio.ensure_future(anext(changes))
        theirs = await Workspaces(cast("Driver", neighbour)).start()
        ours = await workspaces.start()
        # The watch tells of everything from its first list on; one that began late would have missed both.
        while not first.done():
            await runtime.stop(ours)
            await workspaces.start(make_spec(ref=ours, generation=2))
        assert (await first).ref == ours

    assert [observed.ref for observed in await runtime.list()] == [ours]
    assert [observed.ref for observed in await neighbour.list()] == [theirs]
    await neighbour.close()


async def test_a_namespace_that_others_change_meanwhile_goes_too(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = await workspaces.start(make_spec())
    delete = KubeApi.delete
    meddled: list[str] = []

    async def meddling(self: KubeApi, resource: str, namespace: str | None, name: str, **options: Any) -> bool:
        if resource == "namespaces" and len(meddled) < 2:
            meddled.append(name)
            annotations = {"touched": str(len(meddled))}
            await self.patch(resource, namespace, name, {"metadata": {"annotations": annotations}})
        return await delete(self, resource, namespace, name, **options)

    monkeypatch.setattr(KubeApi, "delete", meddling)
    await runtime.delete(ref)
    left = cluster.store.get(NAMESPACES, "", place(ref)[0])
    assert meddled
    assert left is None or left["metadata"].get("deletionTimestamp")
