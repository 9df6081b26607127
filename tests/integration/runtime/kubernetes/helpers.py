"""What the tests of the kubernetes driver share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from libs.runtime.kubernetes.names import namespace_of, workspace_name
from libs.runtime.kubernetes.options import KubernetesOptions
from libs.runtime.port import ObservedWorkspace, WorkspacePhase, WorkspaceRef
from tests.fakes.kube import FakeCluster
from tests.fakes.kube.access import Call
from tests.fakes.kube.resources import CLAIMS, CONFIG_MAPS, NAMESPACES, PODS, SECRETS, Resource

IMPATIENT = KubernetesOptions(start_patience_s=0.5, end_patience_s=0.5)


def place(ref: WorkspaceRef) -> tuple[str, str]:
    """Namespace and name of an environment's objects."""
    return namespace_of("devpocket", ref.user_id), workspace_name(ref.environment_id)


def find(cluster: FakeCluster, resource: Resource, ref: WorkspaceRef) -> dict[str, Any] | None:
    """One object of an environment, as the cluster has it."""
    found: dict[str, Any] | None = cluster.store.get(resource, *place(ref))
    return found


def leftovers(cluster: FakeCluster, ref: WorkspaceRef) -> list[str]:
    """Everything of an environment that is still in the cluster."""
    namespace, name = place(ref)
    return [
        f"{resource.plural}/{item['metadata']['name']}"
        for resource in (PODS, CLAIMS, SECRETS, CONFIG_MAPS)
        for item in cluster.store.list(resource, namespace)
        if item["metadata"]["name"].startswith(name)
    ]


async def until_namespace_is_gone(cluster: FakeCluster, user_id: str) -> None:
    """Wait for the namespace's end."""
    async with asyncio.timeout(30):
        while cluster.store.get(NAMESPACES, "", namespace_of("devpocket", user_id)) is not None:
            await cluster.store.changed(10)


async def until_watched(cluster: FakeCluster, user: str = "admin") -> None:
    """Until a driver watches all its pods in the cluster."""
    async with asyncio.timeout(30):
        while not any(_is_watch_of_all(call) for call in cluster.access.calls.get(user, ())):
            await cluster.store.changed(0.01)


def _is_watch_of_all(call: Call) -> bool:
    return (call.verb, call.resource, call.namespaced) == ("watch", "pods", False)


async def news_of(
    changes: AsyncIterator[ObservedWorkspace], ref: WorkspaceRef, phase: WorkspacePhase
) -> ObservedWorkspace:
    """The next news that one workspace is in this phase."""
    async with asyncio.timeout(30):
        async for observed in changes:
            if observed.ref == ref and observed.phase is phase:
                return observed
    raise AssertionError("the watch ended")


def of_user(user_id: str, ref: WorkspaceRef) -> WorkspaceRef:
    """The same environment of another user."""
    return replace(ref, user_id=user_id)
