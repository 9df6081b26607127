"""From a manifest to a real process and its end."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from kubernetes.aio.client import ApiException

from tests.fakes.kube import FakeCluster, Image
from tests.fakes.kube.resources import CLAIMS, PODS
from tests.fakes.kube.store import Store
from tests.integration.fakes.talk import claim, eventually, pod, sandboxed, with_claim


async def until_gone(store: Store, name: str, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while store.get(PODS, "space", name) is not None:
            await store.changed(1)


async def state_of(cluster: FakeCluster, name: str, reason: str) -> dict[str, Any]:
    """The container's state once it is, or was, what `reason` says."""
    async with asyncio.timeout(30):
        while True:
            found = cluster.store.get(PODS, "space", name) or {"status": {}}
            for status in found["status"].get("containerStatuses", []):
                for kind in ("state", "lastState"):
                    for state in status[kind].values():
                        if state.get("reason") == reason:
                            return dict(state) | {"restarts": status["restartCount"]}
            await cluster.store.changed(1)


async def reasons(core: Any, name: str) -> set[str]:
    found = await core.list_namespaced_event("space", field_selector=f"involvedObject.name={name}")
    return {event.reason for event in found.items}


async def test_a_pod_goes_from_pending_to_ready(cluster: FakeCluster, core: Any, space: str) -> None:
    made = await core.create_namespaced_pod(space, pod())
    assert made.status.phase == "Pending"
    assert made.spec.termination_grace_period_seconds == 2
    assert made.spec.tolerations
    await cluster.settle(space, "p", phase="Running")
    found = await core.read_namespaced_pod("p", space)
    assert {c.type: c.status for c in found.status.conditions} == {
        "PodScheduled": "True",
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
    }
    assert found.spec.node_name == "node-1"
    assert found.status.pod_ip
    assert found.status.container_statuses[0].state.running.started_at
    assert {"Scheduled", "Started"} <= await reasons(core, "p")


async def test_twenty_at_once_all_run(cluster: FakeCluster, core: Any, space: str) -> None:
    await asyncio.gather(*(core.create_namespaced_pod(space, pod(f"p{n}")) for n in range(20)))
    await asyncio.gather(*(cluster.settle(space, f"p{n}", phase="Running") for n in range(20)))


async def test_a_deletion_is_polite_first(cluster: FakeCluster, core: Any, space: str) -> None:
    await core.create_namespaced_pod(space, pod())
    await cluster.settle(space, "p", phase="Running")
    answer = await core.delete_namespaced_pod("p", space, grace_period_seconds=60)
    assert answer.metadata.deletion_grace_period_seconds == 60
    assert answer.metadata.deletion_timestamp
    await until_gone(cluster.store, "p")


@sandboxed
async def test_a_first_process_that_does_not_listen_takes_the_whole_grace(
    cluster: FakeCluster, core: Any, space: str
) -> None:
    await core.create_namespaced_pod(space, pod(command=["sleep", "60"], terminationGracePeriodSeconds=1))
    await cluster.settle(space, "p", phase="Running")
    start = time.monotonic()
    await core.delete_namespaced_pod("p", space)
    await until_gone(cluster.store, "p")
    assert time.monotonic() - start >= 0.9


async def test_a_forced_deletion_is_off_the_books_at_once(cluster: FakeCluster, core: Any, space: str) -> None:
    await core.create_namespaced_pod(space, pod(command=["sleep", "60"]))
    found = await cluster.settle(space, "p", phase="Running")
    container = cluster.kubelet.container(found, "main")
    assert container is not None
    assert container.current is not None
    await core.delete_namespaced_pod("p", space, grace_period_seconds=0)
    with pytest.raises(ApiException, match="Not Found"):
        await core.read_namespaced_pod("p", space)
    await asyncio.wait_for(container.current.ended.wait(), 30)


async def test_a_pod_without_a_node_goes_at_once(cluster: FakeCluster, core: Any, space: str) -> None:
    cluster.pause_scheduler()
    await core.create_namespaced_pod(space, pod())
    await core.delete_namespaced_pod("p", space)
    assert cluster.store.get(PODS, space, "p") is None


async def test_restart_policies(cluster: FakeCluster, core: Any, space: str) -> None:
    await core.create_namespaced_pod(space, pod("done", ["true"], restartPolicy="Never"))
    await core.create_namespaced_pod(space, pod("bad", ["sh", "-c", "exit 7"], restartPolicy="Never"))
    await core.create_namespaced_pod(space, pod("loop", ["sh", "-c", "exit 3"]))
    await cluster.settle(space, "done", phase="Succeeded")
    failed = await cluster.settle(space, "bad", phase="Failed")
    assert failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7
    backing_off = await state_of(cluster, "loop", "CrashLoopBackOff")
    assert backing_off["restarts"] >= 1
    assert "restarting failed container=main pod=loop_space(" in backing_off["message"]
    assert (await state_of(cluster, "loop", "Error"))["exitCode"] == 3


async def test_the_end_of_the_log_becomes_the_message_where_asked_for(
    cluster: FakeCluster, core: Any, space: str
) -> None:
    words = {"container": {"terminationMessagePolicy": "FallbackToLogsOnError"}, "restartPolicy": "Never"}
    await core.create_namespaced_pod(space, pod("p", ["sh", "-c", "echo out of luck; exit 1"], **words))
    await cluster.settle(space, "p", phase="Failed")
    assert (await state_of(cluster, "p", "Error"))["message"] == "out of luck\n"


async def test_a_missing_program_cannot_start(cluster: FakeCluster, core: Any, space: str) -> None:
    await core.create_namespaced_pod(space, pod(command=["/no/such/program"], restartPolicy="Never"))
    await cluster.settle(space, "p", phase="Failed")
    assert (await state_of(cluster, "p", "StartError"))["exitCode"] == 128


async def test_an_unknown_image_is_tried_again_until_it_is_there(cluster: FakeCluster, core: Any, space: str) -> None:
    await core.create_namespaced_pod(space, pod(container={"image": "nowhere/else:1"}))
    assert "nowhere/else:1: not found" in (await state_of(cluster, "p", "ErrImagePull"))["message"]
    assert "Back-off pulling image" in (await state_of(cluster, "p", "ImagePullBackOff"))["message"]
    assert {"Pulling", "Failed", "BackOff"} <= await reasons(core, "p")
    cluster.add_image("nowhere/else:1")
    await cluster.settle(space, "p", phase="Running")


async def test_other_image_troubles(cluster: FakeCluster, core: Any, space: str) -> None:
    never = {"image": "nowhere/else:1", "imagePullPolicy": "Never"}
    await core.create_namespaced_pod(space, pod("never", container=never))
    await core.create_namespaced_pod(space, pod("odd", container={"image": "Not A Name"}))
    assert (
        "is not present with pull policy of Never" in (await state_of(cluster, "never", "ErrImageNeverPull"))["message"]
    )
    assert "invalid reference format" in (await state_of(cluster, "odd", "InvalidImageName"))["message"]


async def test_a_missing_secret_keeps_the_container_waiting(cluster: FakeCluster, core: Any, space: str) -> None:
    source = [{"secretRef": {"name": "vars"}}]
    script = 'echo "$A and $B"; sleep 60'
    env = [{"name": "B", "value": "[$(A)]"}]
    await core.create_namespaced_pod(
        space, pod(command=["sh", "-c", script], container={"envFrom": source, "env": env})
    )
    waiting = await state_of(cluster, "p", "CreateContainerConfigError")
    assert waiting["message"] == 'secret "vars" not found'
    await core.create_namespaced_secret(space, {"metadata": {"name": "vars"}, "stringData": {"A": "one"}})
    await cluster.settle(space, "p", phase="Running")
    await eventually(lambda: core.read_namespaced_pod_log("p", space), lambda log: log == "one and [one]\n")


async def test_an_image_that_runs_as_root_is_refused_by_the_node(cluster: FakeCluster, core: Any, space: str) -> None:
    cluster.add_image("rooted:1", Image(user=0))
    await core.create_namespaced_pod(
        space, pod(container={"image": "rooted:1"}, securityContext={"runAsNonRoot": True})
    )
    waiting = await state_of(cluster, "p", "CreateContainerConfigError")
    assert "container has runAsNonRoot and image will run as root" in waiting["message"]


async def test_a_full_node_leaves_the_pod_pending_and_says_why(cluster: FakeCluster, core: Any, space: str) -> None:
    cluster.resize_node("node-1", cpu="1")
    big: dict[str, Any] = {"container": {"resources": {"requests": {"cpu": "2"}}}}
    await core.create_namespaced_pod(space, pod(**big))
    async with asyncio.timeout(30):
        while not (found := await core.read_namespaced_pod("p", space)).status.conditions:
            await cluster.store.changed(1)
    condition = found.status.conditions[0]
    assert (condition.type, condition.status, condition.reason) == ("PodScheduled", "False", "Unschedulable")
    assert condition.message.startswith("0/1 nodes are available: 1 Insufficient cpu.")
    assert await reasons(core, "p") == {"FailedScheduling"}
    cluster.resize_node("node-1", cpu="8")
    await cluster.settle(space, "p", phase="Running")


async def test_a_claim_waits_for_its_first_pod_and_its_content_outlives_it(
    cluster: FakeCluster, core: Any, space: str
) -> None:
    await core.create_namespaced_persistent_volume_claim(space, claim())
    script = "cat note 2>/dev/null; echo kept >> note; echo done; sleep 60"
    volume = with_claim()
    volume["container"]["workingDir"] = "/workspace"
    body = pod(command=["sh", "-c", script], restartPolicy="Never", **volume)
    assert (await core.read_namespaced_persistent_volume_claim("c", space)).status.phase == "Pending"
    for expected in ("done\n", "kept\ndone\n"):
        await core.create_namespaced_pod(space, body)
        await cluster.settle(space, "p", phase="Running")
        assert (await core.read_namespaced_persistent_volume_claim("c", space)).status.phase == "Bound"
        await eventually(lambda: core.read_namespaced_pod_log("p", space), expected.__eq__)
        await core.delete_namespaced_pod("p", space, grace_period_seconds=1)
        await until_gone(cluster.store, "p")


async def test_a_claim_in_use_stays_until_the_pod_is_gone(cluster: FakeCluster, core: Any, space: str) -> None:
    await core.create_namespaced_persistent_volume_claim(space, claim())
    await core.create_namespaced_pod(space, pod(**with_claim()))
    await cluster.settle(space, "p", phase="Running")
    found = cluster.store.get(CLAIMS, space, "c")
    assert found is not None
    folder = cluster.volumes.claim_folder(found)
    await core.delete_namespaced_persistent_volume_claim("c", space)
    await core.create_namespaced_pod(space, pod("late", **with_claim()))
    found = await core.read_namespaced_persistent_volume_claim("c", space)
    assert found.metadata.deletion_timestamp
    await core.delete_namespaced_pod("p", space)
    async with asyncio.timeout(30):
        while cluster.store.get(CLAIMS, space, "c") is not None:
            await cluster.store.changed(1)
    assert not folder.exists()
    late = await eventually(lambda: core.read_namespaced_pod("late", space), lambda late: late.status.conditions)
    assert 'persistentvolumeclaim "c"' in late.status.conditions[0].message


async def test_claims_that_cannot_be_bound(cluster: FakeCluster, core: Any, space: str) -> None:
    await core.create_namespaced_persistent_volume_claim(space, claim("none", storageClassName="gone"))
    await core.create_namespaced_pod(space, pod("a", **with_claim("none")))
    await core.create_namespaced_pod(space, pod("b", **with_claim("missing")))
    words = {"a": "pod has unbound immediate PersistentVolumeClaims", "b": 'persistentvolumeclaim "missing" not found'}
    for name, expected in words.items():
        async with asyncio.timeout(30):
            while not (found := await core.read_namespaced_pod(name, space)).status.conditions:
                await cluster.store.changed(1)
        assert expected in found.status.conditions[0].message
    assert await eventually(lambda: reasons(core, "none"), bool) == {"ProvisioningFailed"}
    cluster.stop_provisioning()
    await core.create_namespaced_persistent_volume_claim(space, claim("slow", storageClassName="immediate"))
    async with asyncio.timeout(30):
        while await reasons(core, "slow") != {"ExternalProvisioning"}:
            await cluster.store.changed(1)
    cluster.resume_provisioning()
    async with asyncio.timeout(30):
        while (await core.read_namespaced_persistent_volume_claim("slow", space)).status.phase != "Bound":
            await cluster.store.changed(1)


async def test_readiness_is_what_the_probe_says(cluster: FakeCluster, core: Any, space: str) -> None:
    await core.create_namespaced_persistent_volume_claim(space, claim())
    probe = {"exec": {"command": ["test", "-e", "/workspace/up"]}, "periodSeconds": 1}
    volume = with_claim()
    volume["container"] |= {"readinessProbe": probe}
    await core.create_namespaced_pod(space, pod(**volume))
    async with asyncio.timeout(30):
        while (await core.read_namespaced_pod("p", space)).status.phase != "Running":
            await cluster.store.changed(1)
    found = await core.read_namespaced_pod("p", space)
    assert {c.type: c.reason for c in found.status.conditions}["Ready"] == "ContainersNotReady"
    bound = cluster.store.get(CLAIMS, space, "c")
    assert bound is not None
    (cluster.volumes.claim_folder(bound) / "up").touch()
    await cluster.settle(space, "p", phase="Running")


@sandboxed
async def test_a_read_only_root_and_a_folder_of_the_pod_alone(cluster: FakeCluster, core: Any, space: str) -> None:
    script = "touch /opt/x || echo no; touch /tmp/y && echo yes; id -u; sleep 60"
    container = {
        "securityContext": {"readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    await core.create_namespaced_pod(
        space, pod(command=["sh", "-c", script], container=container, volumes=[{"name": "tmp", "emptyDir": {}}])
    )
    await cluster.settle(space, "p", phase="Running")
    log = await eventually(lambda: core.read_namespaced_pod_log("p", space), lambda log: log.endswith("1000\n"))
    assert log.splitlines()[-3:] == ["no", "yes", "1000"]
