"""What goes wrong in clusters, on purpose."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import aiohttp
import pytest
from kubernetes.aio.client import ApiException

from tests.fakes.kube import FakeCluster, Fault, FaultPlan, Rule
from tests.fakes.kube.resources import CLAIMS, PODS
from tests.integration.fakes.talk import Plain, claim, eventually, pod, sandboxed, with_claim

SECRETS = "/api/v1/namespaces/space/secrets"


async def run(cluster: FakeCluster, core: Any, **spec: Any) -> dict[str, Any]:
    await core.create_namespaced_pod("space", pod(**spec))
    return await cluster.settle("space", "p", phase="Running")


async def test_a_lost_node_leaves_its_pods_terminating_until_forced(
    cluster: FakeCluster, core: Any, space: str
) -> None:
    await run(cluster, core)
    cluster.lose_node("node-1")
    node = await core.read_node("node-1")
    assert {c.type: c.status for c in node.status.conditions} == {"Ready": "Unknown"}
    found = await core.read_namespaced_pod("p", space)
    assert found.metadata.deletion_timestamp
    assert {c.type: c.status for c in found.status.conditions}["Ready"] == "False"
    await asyncio.sleep(0.3)
    assert cluster.store.get(PODS, space, "p") is not None
    with pytest.raises(ApiException) as refused:
        await core.read_namespaced_pod_log("p", space)
    assert refused.value.status == 500
    await core.delete_namespaced_pod("p", space, grace_period_seconds=0)
    assert cluster.store.get(PODS, space, "p") is None


async def test_a_node_that_comes_back_ends_what_was_deleted(cluster: FakeCluster, core: Any, space: str) -> None:
    found = await run(cluster, core)
    worker = cluster.kubelet.container(found, "main")
    assert worker is not None
    assert worker.current is not None
    cluster.lose_node("node-1")
    assert worker.current.exit_code is None
    cluster.restore_node("node-1")
    async with asyncio.timeout(30):
        while cluster.store.get(PODS, space, "p") is not None:
            await cluster.store.changed(1)
    assert worker.current.exit_code is not None


async def test_an_evicted_pod_stays_as_failed(cluster: FakeCluster, core: Any, space: str) -> None:
    await run(cluster, core)
    cluster.evict(space, "p")
    await cluster.settle(space, "p", phase="Failed")
    found = await core.read_namespaced_pod("p", space)
    assert found.status.reason == "Evicted"
    assert found.status.message.startswith("The node was low on resource: memory.")


async def test_out_of_memory(cluster: FakeCluster, core: Any, space: str) -> None:
    await run(cluster, core, restartPolicy="Never")
    cluster.oom_kill(space, "p")
    await cluster.settle(space, "p", phase="Failed")
    ended = (await core.read_namespaced_pod("p", space)).status.container_statuses[0].state.terminated
    assert (ended.reason, ended.exit_code) == ("OOMKilled", 137)


async def test_a_killed_main_process_restarts_where_the_policy_says_so(
    cluster: FakeCluster, core: Any, space: str
) -> None:
    await run(cluster, core)
    cluster.kill_main(space, "p")
    async with asyncio.timeout(30):
        while (await core.read_namespaced_pod("p", space)).status.container_statuses[0].restart_count != 1:
            await cluster.store.changed(1)
    found = await core.read_namespaced_pod("p", space)
    assert found.status.container_statuses[0].last_state.terminated.exit_code == 137


async def test_a_lost_volume(cluster: FakeCluster, core: Any, space: str) -> None:
    await core.create_namespaced_persistent_volume_claim(space, claim())
    await run(cluster, core, **with_claim())
    cluster.lose_volume(space, "c")
    found = cluster.store.get(CLAIMS, space, "c")
    assert found is not None
    assert found["status"]["phase"] == "Lost"
    await core.create_namespaced_pod(space, pod("next", **with_claim()))
    async with asyncio.timeout(30):
        while not (late := await core.read_namespaced_pod("next", space)).status.conditions:
            await cluster.store.changed(1)
    assert "bound to non-existent persistentvolume" in late.status.conditions[0].message


async def test_injected_errors_come_at_their_rate_and_the_same_for_a_seed(
    cluster: FakeCluster, plain: Plain, space: str
) -> None:
    async def once(seed: int) -> list[int]:
        kinds = [Fault.INTERNAL_ERROR, Fault.UNAVAILABLE, Fault.TOO_MANY_REQUESTS]
        cluster.context.faults = FaultPlan(seed=seed, rate=0.3, kinds=kinds)
        return [(await plain.call("GET", SECRETS))[0] for _ in range(100)]

    first = await once(7)
    assert first == await once(7)
    assert first != await once(8)
    counts = Counter(first)
    assert set(counts) == {200, 500, 503, 429}
    assert 15 <= 100 - counts[200] <= 45


async def test_too_many_requests_says_when_to_come_back(cluster: FakeCluster, plain: Plain, space: str) -> None:
    cluster.context.faults = FaultPlan(rate=1.0, kinds=[Fault.TOO_MANY_REQUESTS])
    async with plain.session.get(plain.url(SECRETS)) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert (await answer.json())["details"] == {"retryAfterSeconds": 1}


async def test_a_lost_answer_took_effect_and_a_reset_did_not(cluster: FakeCluster, plain: Plain, space: str) -> None:
    for name, fault, status in (("lost", Fault.LOST_ANSWER, 200), ("reset", Fault.RESET, 404)):
        cluster.context.faults = FaultPlan(rate=1.0, kinds=[fault])
        with pytest.raises(aiohttp.ClientError):
            await plain.call("POST", SECRETS, {"metadata": {"name": name}})
        assert cluster.context.faults.injected == {fault: 1}
        cluster.context.faults = FaultPlan()
        assert (await plain.call("GET", f"{SECRETS}/{name}"))[0] == status


async def test_a_call_that_hangs_takes_as_long_as_its_caller_waits(
    cluster: FakeCluster, plain: Plain, space: str
) -> None:
    cluster.context.faults = FaultPlan(rate=1.0, kinds=[Fault.HANG])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(plain.call("GET", SECRETS), 0.3)


async def test_a_dead_network_is_silent_for_watches_and_streams(
    cluster: FakeCluster, core: Any, plain: Plain, space: str
) -> None:
    await run(cluster, core)
    query = {"command": "cat", "stdin": "true", "stdout": "true"}
    path = "/api/v1/namespaces/space/pods/p/exec"
    async with (
        plain.session.get(plain.url(SECRETS), params={"watch": "1"}) as watch,
        plain.session.ws_connect(plain.url(path), protocols=["v5.channel.k8s.io"], params=query) as stream,
    ):
        await stream.receive()
        cluster.freeze()
        await asyncio.sleep(0)
        await stream.send_bytes(b"\x00hello")
        assert (await plain.call("POST", SECRETS, {"metadata": {"name": "s"}}))[0] == 201
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watch.content.readline(), 0.2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.receive(), 0.2)
        cluster.thaw()
        assert b'"name": "s"' in await asyncio.wait_for(watch.content.readline(), 30)


async def test_faults_can_be_aimed(cluster: FakeCluster, plain: Plain, space: str) -> None:
    cluster.context.faults = FaultPlan(
        rate=1.0, kinds=[Fault.UNAVAILABLE], matches=lambda verb, resource, subresource: verb == "create"
    )
    assert (await plain.call("GET", SECRETS))[0] == 200
    assert (await plain.call("POST", SECRETS, {"metadata": {"name": "s"}}))[0] == 503


async def test_watches_end_early_and_are_told_410_at_a_rate(cluster: FakeCluster, plain: Plain, space: str) -> None:
    cluster.context.faults = FaultPlan(watch_seconds=0.05, gone_rate=1.0)
    async with asyncio.timeout(30):
        async with plain.session.get(plain.url(SECRETS), params={"watch": "1"}) as answer:
            assert await answer.text() == ""
        _, listing = await plain.call("GET", SECRETS)
        query = {"watch": "1", "resourceVersion": listing["metadata"]["resourceVersion"]}
        async with plain.session.get(plain.url(SECRETS), params=query) as answer:
            assert '"code": 410' in await answer.text()


async def test_tokens_and_rules(cluster: FakeCluster, plain: Plain, space: str) -> None:
    async with Plain(cluster.url, "wrong") as stranger:
        status, body = await stranger.call("GET", SECRETS)
        assert (status, body["reason"]) == (401, "Unauthorized")
    rules = [Rule("", "secrets", "", "list"), Rule("networking.k8s.io", "*", "", "*")]
    cluster.access.add_user("reader", "reader-token", rules)
    async with Plain(cluster.url, "reader-token") as reader:
        assert (await reader.call("GET", SECRETS))[0] == 200
        assert (await reader.call("GET", "/apis/networking.k8s.io/v1/networkpolicies"))[0] == 200
        status, body = await reader.call("GET", f"{SECRETS}/s")
        assert (status, body["message"]) == (
            403,
            'secrets "s" is forbidden: User "reader" cannot get resource "secrets" in API group "" in the namespace '
            '"space"',
        )
        status, body = await reader.call("GET", "/api/v1/namespaces/space/pods/p/log")
        assert 'cannot get resource "pods/log" in API group ""' in body["message"]
        review = {"spec": {"resourceAttributes": {"verb": "list", "resource": "secrets", "namespace": "space"}}}
        status, body = await reader.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        assert status == 403
    verbs = {(call.verb, call.resource, call.subresource) for call in cluster.access.calls["reader"]}
    assert {("list", "secrets", ""), ("get", "secrets", ""), ("get", "pods", "log")} <= verbs
    status, body = await plain.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    assert body["status"] == {"allowed": True}


@sandboxed
async def test_metrics_and_the_nodes_own_summary(cluster: FakeCluster, core: Any, plain: Plain, space: str) -> None:
    await core.create_namespaced_persistent_volume_claim(space, claim())
    busy = "head -c 3000000 /dev/zero > /workspace/f; while :; do :; done"
    await run(cluster, core, command=["sh", "-c", busy], **with_claim())
    path = "/apis/metrics.k8s.io/v1beta1/namespaces/space/pods"

    async def summary() -> Any:
        return (await plain.call("GET", "/api/v1/nodes/node-1/proxy/stats/summary"))[1]["pods"][0]

    def works(found: Any) -> bool:
        return bool(found["volume"][0]["usedBytes"] >= 3_000_000 and found["cpu"]["usageCoreNanoSeconds"] > 0)

    volume = (await eventually(summary, works))["volume"][0]
    assert volume["pvcRef"] == {"name": "c", "namespace": "space"}
    assert volume["capacityBytes"] == 1 << 30

    async def usage() -> Any:
        await asyncio.sleep(0.1)
        return (await plain.call("GET", f"{path}/p"))[1]["containers"][0]["usage"]

    used = await eventually(usage, lambda used: int(used["cpu"].removesuffix("n")) > 10_000_000)
    assert int(used["memory"].removesuffix("Ki")) > 100
    assert (await plain.call("GET", f"{path}/nobody"))[0] == 404
    cluster.set_metrics("missing")
    assert await plain.call("GET", f"{path}/p") == (404, {"text": "404 page not found\n"})
    cluster.set_metrics("unavailable")
    assert (await plain.call("GET", f"{path}/p"))[0] == 503


async def test_a_server_that_is_away_comes_back_at_the_same_place_with_everything(
    cluster: FakeCluster, core: Any, plain: Plain, space: str
) -> None:
    await run(cluster, core)
    await cluster.hang_up()
    with pytest.raises(aiohttp.ClientConnectionError):
        await plain.call("GET", SECRETS)
    await cluster.listen()
    found = await core.read_namespaced_pod("p", space)
    assert found.status.phase == "Running"
