"""deploy/k8s/rbac holds exactly the rights that the driver uses: none is missing, none is there in vain."""

from __future__ import annotations

import asyncio
import copy
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from libs.runtime.kubernetes import lifecycle
from libs.runtime.kubernetes.options import ClusterAccess
from libs.runtime.kubernetes.runtime import KubernetesRuntime
from libs.runtime.port import RuntimeUnavailableError, WorkspacePhase
from tests.fakes.kube import FakeCluster, FaultPlan, Rule
from tests.fakes.kube.resources import CLAIMS, CONFIG_MAPS, NAMESPACES, PODS, Resource
from tests.integration.runtime.kubernetes.helpers import IMPATIENT, find, news_of, place, until_watched
from tests.runtime_contract.kube import contract_image, kubernetes_halves
from tests.runtime_contract.rights import rules_of
from tests.runtime_contract.workspaces import IMAGE, Driver, Workspaces, collect_logs, make_spec


async def live(driver: Driver, cluster: FakeCluster) -> None:
    """Everything that a driver is ever asked to do, and what can befall it."""
    workspaces = Workspaces(driver)
    spec = make_spec(startup_command="echo said")
    cluster.remove_image(IMAGE)
    with pytest.raises(RuntimeUnavailableError):
        await workspaces.start(spec)
    cluster.stop_provisioning()
    with pytest.raises(RuntimeUnavailableError):
        await driver.ensure(make_spec())
    cluster.resume_provisioning()
    async with aclosing(driver.watch()) as changes:  # type: ignore[type-var]
        telling = asyncio.ensure_future(news_of(changes, spec.ref, WorkspacePhase.RUNNING))
        await until_watched(cluster, "orchestrator")
        cluster.add_image(IMAGE, contract_image())
        await until_running(driver, spec)
        await telling
    assert (await workspaces.run(spec.ref, "echo hello"))[1] == b"hello\n"
    await (await driver.connect(spec.ref, 8000)).close()
    lines = driver.logs(spec.ref, follow=True)
    await collect_logs(lines, "said")
    following = asyncio.ensure_future(collect_logs(lines, "again"))
    cluster.set_metrics("missing")
    await driver.stats(spec.ref)
    cluster.set_metrics("on")
    # Watches that cannot go on from where they were start from a list.
    cluster.context.faults = FaultPlan(seed=1, gone_rate=0.5, watch_seconds=0.2)
    for generation, command in ((2, "echo other"), (3, "echo again")):
        await driver.stop(spec.ref)
        await until_running(driver, replace(spec, generation=generation, startup_command=command))
    await following
    await lose_node_of(driver, cluster, replace(spec, generation=4))
    await until_deleted(driver, cluster)
    await until_running(driver, make_spec())
    cluster.context.faults = FaultPlan()


async def until_deleted(driver: Driver, cluster: FakeCluster) -> None:
    """Everything goes, the volumes and the namespace only after a while."""
    namespace = place(make_spec().ref)[0]
    anchor: Any = {"metadata": {"name": "anchor", "finalizers": ["example.com/hold"]}}
    cluster.api.create(CONFIG_MAPS, namespace, anchor)
    held = [(CLAIMS, claim["metadata"]["name"]) for claim in cluster.store.list(CLAIMS, namespace)]
    for resource, name in held:
        cluster.store.edit(resource, cluster.api.get(resource, namespace, name), hold)
    letting_go = asyncio.ensure_future(let_go(cluster, namespace, [*held, (CONFIG_MAPS, "anchor")]))
    await asyncio.gather(*(driver.delete(observed.ref) for observed in await driver.list()))
    await asyncio.gather(letting_go, until_running(driver, make_spec()))


def hold(item: Any) -> None:
    """Something in the cluster is not done with it."""
    item["metadata"]["finalizers"] = [*item["metadata"].get("finalizers", []), "example.com/hold"]


async def let_go(cluster: FakeCluster, namespace: str, held: list[tuple[Resource, str]]) -> None:
    """Once somebody waits for it."""
    for resource, name in held:
        async with asyncio.timeout(60):
            while not is_watched(cluster, resource):
                await cluster.store.changed(0.05)
        item = copy.deepcopy(cluster.api.get(resource, namespace, name))
        release(item)
        cluster.api.update(resource, namespace, name, item)


def is_watched(cluster: FakeCluster, resource: Resource) -> bool:
    """Whether somebody has followed what an object of this kind holds up: itself, or its namespace."""
    watched = "namespaces" if resource is CONFIG_MAPS else resource.plural
    return any((call.verb, call.resource) == ("watch", watched) for call in cluster.access.calls["orchestrator"])


def release(item: Any) -> None:
    """It is done."""
    item["metadata"]["finalizers"] = [name for name in item["metadata"]["finalizers"] if name != "example.com/hold"]


async def until_running(driver: Driver, spec: Any) -> None:
    """As the orchestrator does: again while it may still come."""
    async with asyncio.timeout(60):
        while True:
            try:
                await driver.ensure(spec)
                return
            except RuntimeUnavailableError as error:
                if error.reason == "ClusterForbidden":
                    raise


async def lose_node_of(driver: Driver, cluster: FakeCluster, spec: Any) -> None:
    """The node goes, and the workspace comes up elsewhere."""
    cluster.add_node("node-2")
    pod: Any = find(cluster, PODS, spec.ref)
    cluster.lose_node(pod["spec"]["nodeName"])
    await until_running(driver, spec)


async def touch_policies(cluster: FakeCluster) -> None:
    """With other policies, those of a namespace that is there are brought up to date."""
    access = ClusterAccess(kubeconfig=cluster.kubeconfig_for("orchestrator", "token-of-orchestrator"))
    changed = KubernetesRuntime(access, replace(IMPATIENT, blocked_cidrs=("203.0.113.0/24",)))
    await changed.open()
    await until_running(cast("Driver", changed), make_spec())
    await changed.close()


async def test_no_right_is_missing_and_none_is_there_in_vain(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_REPLACE_GRACE_S", 0.1)
    async with kubernetes_halves(folder, IMPATIENT) as (halves, cluster):
        driver = cast("Driver", halves)
        await live(driver, cluster)
        await touch_policies(cluster)
        namespace = place(make_spec().ref)[0]
        assert cluster.store.get(NAMESPACES, "", namespace) is not None
        for user in ("orchestrator", "terminal"):
            granted = set(rules_of(f"{user}.yaml"))
            used = {Rule(c.group, c.resource, c.subresource, c.verb) for c in cluster.access.calls[user]}
            used -= set(rules_of("kubelet-stats.yaml"))
            assert sorted(used - granted) == []
            assert sorted(granted - used) == []


async def test_the_optional_right_is_the_kubelets_and_no_other() -> None:
    assert rules_of("kubelet-stats.yaml") == [Rule("", "nodes", "proxy", "get")]


def test_nobody_reads_secrets() -> None:
    for user in ("orchestrator", "terminal"):
        verbs = {rule.verb for rule in rules_of(f"{user}.yaml") if rule.resource == "secrets"}
        assert not verbs & {"get", "list", "watch"}
