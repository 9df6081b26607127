"""What goes wrong in a cluster: said in words, and made good again where that can be."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from libs.runtime.kubernetes import lifecycle
from libs.runtime.kubernetes.runtime import KubernetesRuntime
from libs.runtime.port import RuntimeUnavailableError, WorkspacePhase, WorkspaceRejectedError
from tests.fakes.kube import FakeCluster
from tests.fakes.kube.resources import CLAIMS, PODS
from tests.integration.runtime.kubernetes.helpers import find, leftovers, news_of, place, until_watched
from tests.runtime_contract.kube import contract_image
from tests.runtime_contract.workspaces import IMAGE, Workspaces, make_spec

FAILED, RUNNING = WorkspacePhase.FAILED, WorkspacePhase.RUNNING


async def test_a_pod_deleted_by_hand_is_told_and_brought_back_with_its_files(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    spec = make_spec()
    ref = await workspaces.start(spec)
    await workspaces.run(ref, "echo mine > file")
    async with aclosing(runtime.watch()) as changes:  # type: ignore[type-var]
        telling = asyncio.ensure_future(news_of(changes, ref, FAILED))
        await until_watched(cluster)
        cluster.api.delete(PODS, *place(ref), {"gracePeriodSeconds": 1})
        assert (await telling).reason in ("PodTerminating", "PodDeleted")

    async with asyncio.timeout(30):
        while find(cluster, PODS, ref) is not None:
            await cluster.store.changed(1)
    gone = await runtime.inspect(ref)
    assert gone is not None
    assert (gone.phase, gone.reason) == (FAILED, "PodDeleted")

    assert (await runtime.ensure(spec)).phase is RUNNING
    assert (await workspaces.run(ref, "cat file"))[1] == b"mine\n"


@pytest.mark.parametrize("how", ["deleted", "lost", "replaced"])
async def test_a_volume_that_is_lost_is_never_replaced_by_an_empty_one(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces, how: str
) -> None:
    spec = make_spec()
    ref = await workspaces.start(spec)
    await runtime.stop(ref)
    claim = find(cluster, CLAIMS, ref)
    assert claim is not None
    if how == "lost":
        cluster.lose_volume(*place(ref))
    else:
        cluster.api.delete(CLAIMS, *place(ref), {})
        async with asyncio.timeout(30):
            while find(cluster, CLAIMS, ref) is not None:
                await cluster.store.changed(1)
    if how == "replaced":
        metadata = {"name": claim["metadata"]["name"], "labels": claim["metadata"]["labels"]}
        cluster.api.create(CLAIMS, place(ref)[0], {"metadata": metadata, "spec": {**claim["spec"], "volumeName": ""}})

    lost = await runtime.inspect(ref)

    assert lost is not None
    assert (lost.phase, lost.reason) == (FAILED, "VolumeLost")
    before = find(cluster, CLAIMS, ref)
    for generation in (1, 2):
        with pytest.raises(WorkspaceRejectedError) as caught:
            await runtime.ensure(replace(spec, generation=generation))
        assert caught.value.reason == "VolumeLost"
    assert find(cluster, PODS, ref) is None
    assert find(cluster, CLAIMS, ref) == before
    await runtime.delete(ref)
    assert leftovers(cluster, ref) == []


async def test_a_volume_deleted_while_it_is_used_is_told_before_it_goes(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    spec = make_spec()
    ref = await workspaces.start(spec)
    cluster.api.delete(CLAIMS, *place(ref), {})

    observed = await runtime.inspect(ref)
    assert observed is not None
    assert (observed.phase, observed.reason) == (FAILED, "VolumeTerminating")

    await runtime.stop(ref)
    # It goes some time after the pod that used it.
    async with asyncio.timeout(30):
        while find(cluster, CLAIMS, ref) is not None:
            await cluster.store.changed(1)
    with pytest.raises(WorkspaceRejectedError, match="volume is gone"):
        await runtime.ensure(replace(spec, generation=2))


async def test_an_image_that_cannot_be_pulled(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    cluster.remove_image(IMAGE)
    spec = make_spec()
    with pytest.raises(RuntimeUnavailableError, match="image cannot be pulled") as caught:
        await workspaces.start(spec)
    assert caught.value.reason in ("ErrImagePull", "ImagePullBackOff")
    assert IMAGE in str(caught.value)
    observed = await runtime.inspect(spec.ref)
    assert observed is not None
    assert (observed.phase, observed.reason in ("ErrImagePull", "ImagePullBackOff")) == (WorkspacePhase.STARTING, True)

    cluster.add_image(IMAGE, contract_image())
    async with asyncio.timeout(30):
        while True:
            try:
                assert (await runtime.ensure(spec)).phase is RUNNING
                break
            except RuntimeUnavailableError:
                continue


async def test_an_image_name_that_cannot_be(workspaces: Workspaces) -> None:
    with pytest.raises(WorkspaceRejectedError):
        await workspaces.start(replace(make_spec(), image="Not An Image!"))


async def test_a_cluster_without_room(runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces) -> None:
    cluster.resize_node("node-1", cpu="1m")
    spec = make_spec()
    with pytest.raises(RuntimeUnavailableError, match="No node") as caught:
        await workspaces.start(spec)
    assert caught.value.reason == "Unschedulable"
    cluster.resize_node("node-1", cpu="8")
    assert (await runtime.ensure(spec)).phase is RUNNING


async def test_a_volume_that_does_not_come(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    cluster.stop_provisioning()
    spec = make_spec()
    with pytest.raises(RuntimeUnavailableError) as caught:
        await workspaces.start(spec)
    assert caught.value.reason in ("VolumePending", "StartTimeout")
    cluster.resume_provisioning()
    assert (await runtime.ensure(spec)).phase is RUNNING


@pytest.mark.parametrize(
    ("what", "reason"), [("oom_kill", "OOMKilled"), ("evict", "Evicted"), ("kill_main", "MainProcessFailed")]
)
async def test_a_workspace_that_ends_by_itself(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces, what: str, reason: str
) -> None:
    spec = make_spec()
    ref = await workspaces.start(spec)
    async with aclosing(runtime.watch()) as changes:  # type: ignore[type-var]
        telling = asyncio.ensure_future(news_of(changes, ref, FAILED))
        await until_watched(cluster)
        getattr(cluster, what)(*place(ref))
        observed = await telling

    assert observed.reason == reason
    assert observed.message
    assert await runtime.inspect(ref) == observed
    assert (await runtime.ensure(spec)).phase is RUNNING


async def test_a_lost_node_does_not_hold_a_workspace(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "_REPLACE_GRACE_S", 0.1)
    spec = make_spec()
    ref = await workspaces.start(spec)
    cluster.add_node("node-2")
    pod = find(cluster, PODS, ref)
    assert pod is not None
    cluster.lose_node(pod["spec"]["nodeName"])
    observed = await runtime.inspect(ref)
    assert observed is not None
    assert observed.phase is FAILED

    assert (await runtime.ensure(spec)).phase is RUNNING
    again = find(cluster, PODS, ref)
    assert again is not None
    assert again["spec"]["nodeName"] != pod["spec"]["nodeName"]


async def test_a_pod_that_does_not_end_on_a_node_that_lives_is_not_taken_for_gone(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    ref = await workspaces.start()
    pod: Any = find(cluster, PODS, ref)
    cluster.store.edit(PODS, pod, lambda item: item["metadata"].update(finalizers=["example.com/hold"]))

    with pytest.raises(RuntimeUnavailableError) as caught:
        await runtime.stop(ref, grace_seconds=0.1)

    assert caught.value.reason == "StuckTerminating"
    assert find(cluster, PODS, ref) is not None
    held: Any = find(cluster, PODS, ref)
    cluster.store.edit(PODS, held, lambda item: item["metadata"].update(finalizers=[]))
