"""The API server fails, forgets, goes away and comes back; nothing is lost, nothing doubled."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from libs.runtime.kubernetes.api import KubeApi
from libs.runtime.kubernetes.connection import Connection
from libs.runtime.kubernetes.options import ClusterAccess
from libs.runtime.kubernetes.runtime import KubernetesRuntime
from libs.runtime.port import DriverError, RuntimeUnavailableError, WorkspacePhase
from tests.fakes.kube import FakeCluster, FaultPlan
from tests.fakes.kube.resources import PODS
from tests.integration.runtime.kubernetes.helpers import (
    leftovers,
    news_of,
    place,
    until_namespace_is_gone,
    until_watched,
)
from tests.runtime_contract.kube import kubernetes_runtime
from tests.runtime_contract.workspaces import Driver, Workspaces, collect_logs, make_spec, read_all, read_until

RUNNING, STOPPED, FAILED = WorkspacePhase.RUNNING, WorkspacePhase.STOPPED, WorkspacePhase.FAILED


@pytest.mark.parametrize("trouble", ["drop", "410 event", "410 status", "restart"])
async def test_a_watch_survives(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces, trouble: str
) -> None:
    ref = await workspaces.start()
    async with aclosing(runtime.watch()) as changes:  # type: ignore[type-var]
        telling = asyncio.ensure_future(news_of(changes, ref, FAILED))
        await until_watched(cluster)
        if trouble == "drop":
            cluster.drop_watches()
        elif trouble == "restart":
            await cluster.hang_up()
            await asyncio.sleep(0.3)
            await cluster.listen()
        else:
            cluster.compact(http_status=trouble == "410 status")
        cluster.oom_kill(*place(ref))
        assert (await telling).reason == "OOMKilled"


async def test_what_happens_while_a_watch_is_away_is_told_afterwards(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    ref = await workspaces.start()
    async with aclosing(runtime.watch()) as changes:  # type: ignore[type-var]
        telling = asyncio.ensure_future(news_of(changes, ref, FAILED))
        await until_watched(cluster)
        await cluster.hang_up()
        cluster.api.delete(PODS, *place(ref), {"gracePeriodSeconds": 0})
        cluster.compact()
        await cluster.listen()
        assert (await telling).reason == "PodDeleted"


async def test_a_whole_life_under_a_failing_server(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    specs = [make_spec() for _ in range(4)]
    cluster.context.faults = FaultPlan(seed=7, rate=0.15, latency=0.01, watch_seconds=0.3, gone_rate=0.3)

    async def insist(work: object, seconds: float = 60) -> object:
        """As the orchestrator does: again, whatever it was that is temporary."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    return await work()  # type: ignore[operator]
                except RuntimeUnavailableError:
                    await asyncio.sleep(0.05)

    for step in range(3):
        wishes = [replace(spec, generation=step + 1) for spec in specs]
        await asyncio.gather(*(insist(lambda spec=spec: runtime.ensure(spec)) for spec in wishes))
        if step == 1:
            await asyncio.gather(*(insist(lambda spec=spec: runtime.stop(spec.ref)) for spec in wishes))
    faults, cluster.context.faults = cluster.context.faults, FaultPlan()
    assert sum(faults.injected.values()) > 20
    for observed in await runtime.list():
        assert (observed.phase, observed.generation) == (RUNNING, 3)
    assert len(cluster.store.list(PODS)) == len(specs)

    cluster.context.faults = FaultPlan(seed=8, rate=0.15, latency=0.01, watch_seconds=0.3, gone_rate=0.3)
    await asyncio.gather(*(insist(lambda spec=spec: runtime.delete(spec.ref)) for spec in specs))
    cluster.context.faults = FaultPlan()
    for spec in specs:
        assert leftovers(cluster, spec.ref) == []
    await runtime.delete(specs[0].ref)
    await until_namespace_is_gone(cluster, "user-1")


async def test_a_cluster_that_is_away_is_told_in_words_and_comes_back(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    ref = await workspaces.start()
    await cluster.hang_up()
    with pytest.raises(RuntimeUnavailableError) as caught:
        await runtime.inspect(ref)
    assert caught.value.reason == "ClusterUnreachable"
    await cluster.listen()
    observed = await runtime.inspect(ref)
    assert observed is not None
    assert observed.phase is RUNNING


async def test_streams_end_when_the_server_goes(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    ref = await workspaces.start()
    stream = await runtime.exec(ref, ["sh", "-c", "echo begun; exec sleep 1000"])
    await read_until(stream, b"\n")
    await cluster.hang_up()
    async with asyncio.timeout(30):
        assert await read_all(stream) == b""
        assert await stream.wait() > 128
    await cluster.listen()
    await stream.close()
    assert (await workspaces.run(ref, "pgrep -f '[s]leep 1000'"))[1] == b""


async def test_a_followed_log_loses_and_doubles_nothing_when_its_connection_breaks(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    command = "for n in $(seq 300); do echo line $n; sleep 0.005; done; echo done"
    ref = await workspaces.start(make_spec(startup_command=command))
    following = asyncio.ensure_future(collect_logs(runtime.logs(ref, follow=True), "done", seconds=60))
    for _ in range(3):
        await asyncio.sleep(0.3)
        await cluster.hang_up()
        await cluster.listen()

    lines = [line.message for line in await following if line.message.startswith("line ")]
    assert lines == [f"line {number}" for number in range(1, 301)]


async def test_a_followed_log_goes_on_in_the_next_pod(runtime: KubernetesRuntime, workspaces: Workspaces) -> None:
    spec = make_spec(startup_command="echo first")
    ref = await workspaces.start(spec)
    lines = runtime.logs(ref, follow=True)
    await collect_logs(lines, "first")
    following = asyncio.ensure_future(collect_logs(lines, "second"))

    await runtime.stop(ref)
    await runtime.ensure(replace(spec, generation=2, startup_command="echo second"))

    assert "first" not in [line.message for line in await following]
    kept = [line.message async for line in runtime.logs(ref)]
    assert kept.index("first") < kept.index("second")


async def test_a_pod_that_crashed_leaves_its_last_words(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    spec = make_spec(startup_command="echo last words")
    ref = await workspaces.start(spec)
    await collect_logs(runtime.logs(ref, follow=True), "last words")
    cluster.oom_kill(*place(ref))
    await runtime.ensure(replace(spec, startup_command=None))
    assert "last words" in [line.message async for line in runtime.logs(ref)]


async def test_renewed_credentials_are_read_anew(cluster: FakeCluster, workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    path = cluster.folder / "renewed"
    path.write_text(cluster.kubeconfig_path.read_text())
    runtime = KubernetesRuntime(ClusterAccess(path=str(path)))
    await runtime.open()
    cluster.access.revoke("admin")
    with pytest.raises(DriverError) as caught:
        await runtime.inspect(ref)
    assert caught.value.reason == "ClusterUnauthorized"

    cluster.access.add_user("admin", "another-token")
    path.write_text(str(cluster.kubeconfig_for("admin", "another-token")).replace("'", '"'))
    assert await runtime.inspect(ref) is not None
    code, out, _ = await Workspaces(cast("Driver", runtime)).run(ref, "echo fine")
    assert (code, out) == (0, b"fine\n")
    await runtime.close()


@pytest.mark.parametrize("metrics", ["on", "missing", "unavailable"])
async def test_stats_come_from_wherever_they_are(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces, metrics: str
) -> None:
    cluster.set_metrics(metrics)
    ref = await workspaces.start()
    await workspaces.run(ref, "head -c 3000000 /dev/urandom > big")
    sample = await runtime.stats(ref)
    assert sample.memory_bytes > 100_000
    assert sample.storage_bytes >= 3_000_000


async def test_many_at_once(folder: Path) -> None:
    async with kubernetes_runtime(folder) as (runtime, _):
        workspaces = Workspaces(cast("Driver", runtime))
        refs = await asyncio.gather(*(workspaces.start() for _ in range(20)))
        assert [observed.phase for observed in await runtime.list()] == [RUNNING] * 20
        await asyncio.gather(*(runtime.stop(ref) for ref in refs))
        assert [observed.phase for observed in await runtime.list()] == [STOPPED] * 20


async def test_two_processes_share_one_cluster(
    runtime: KubernetesRuntime, cluster: FakeCluster, workspaces: Workspaces
) -> None:
    other = KubernetesRuntime(ClusterAccess(kubeconfig=cluster.kubeconfig))
    await other.open()
    ref = await workspaces.start()
    assert (await Workspaces(cast("Driver", other)).run(ref, "echo shared"))[1] == b"shared\n"
    await other.stop(ref)
    observed = await runtime.inspect(ref)
    assert observed is not None
    assert observed.phase is STOPPED
    await other.close()


async def test_a_list_survives_that_its_pages_expire(cluster: FakeCluster) -> None:
    lists = 0

    def forget(verb: str, resource: str, subresource: str) -> bool:
        nonlocal lists
        lists += (verb, resource) == ("list", "configmaps")
        if lists == 2:
            cluster.compact(drop=False)
        return False

    connection = Connection(ClusterAccess(kubeconfig=cluster.kubeconfig))
    await connection.open()
    api = KubeApi(connection, 4, page=2)
    names = [f"map-{number}" for number in range(5)]
    for name in names:
        await api.create("configmaps", "default", {"metadata": {"name": name, "labels": {"test": "yes"}}})
    in_pages = await api.list("configmaps", "default", labelSelector="test=yes")
    cluster.context.faults = FaultPlan(matches=forget)

    found = await api.list("configmaps", "default", labelSelector="test=yes")

    assert lists == 3
    assert [item["metadata"]["name"] for item in in_pages["items"]] == names
    assert [item["metadata"]["name"] for item in found["items"]] == names
    await connection.close()


async def test_a_watch_reads_renewed_credentials(cluster: FakeCluster, workspaces: Workspaces) -> None:
    watching = asyncio.Event()

    def notice(verb: str, resource: str, subresource: str) -> bool:
        if verb == "watch":
            watching.set()
        return False

    ref = await workspaces.start()
    cluster.context.faults = FaultPlan(matches=notice)
    path = cluster.folder / "renewed"
    path.write_text(json.dumps(cluster.kubeconfig_for("other", "first-token")))
    cluster.access.add_user("other", "first-token")
    runtime = KubernetesRuntime(ClusterAccess(path=str(path)))
    await runtime.open()
    async with aclosing(runtime.watch()) as changes:  # type: ignore[type-var]
        telling = asyncio.ensure_future(news_of(changes, ref, FAILED))
        # Once it watches, its next request is a watch again.
        await watching.wait()
        cluster.access.revoke("other")
        cluster.access.add_user("other", "second-token")
        path.write_text(json.dumps(cluster.kubeconfig_for("other", "second-token")))
        cluster.drop_watches()
        cluster.oom_kill(*place(ref))
        assert (await telling).reason == "OOMKilled"
    await runtime.close()


async def test_a_check_tells_the_version_or_what_is_wrong(cluster: FakeCluster) -> None:
    cluster.access.add_user("nobody", "token", [])
    runtime = KubernetesRuntime(ClusterAccess(kubeconfig=cluster.kubeconfig_for("nobody", "token")))
    await runtime.open()
    assert (await runtime.check()).startswith("v1.")
    cluster.access.revoke("nobody")
    with pytest.raises(RuntimeUnavailableError) as caught:
        await runtime.check()
    assert caught.value.reason == "ClusterUnauthorized"
    await cluster.hang_up()
    with pytest.raises(RuntimeUnavailableError) as caught:
        await runtime.check()
    assert caught.value.reason == "ClusterUnreachable"
    await cluster.listen()
    await runtime.close()
