"""Inspect, list and watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from libs.runtime.kubernetes.api import KubeApi, Object
from libs.runtime.kubernetes.mapping import Parts, is_over, is_terminating, observe, observe_pod, ref_of
from libs.runtime.kubernetes.names import OURS, PART, check_ref, namespace_of, workspace_name
from libs.runtime.kubernetes.options import KubernetesOptions
from libs.runtime.kubernetes.watches import DELETED, Change, Follower
from libs.runtime.port import ObservedWorkspace, WorkspaceRef


class Observer:
    """Reads what one cluster has; changes nothing."""

    def __init__(self, api: KubeApi, options: KubernetesOptions) -> None:
        self._api = api
        self._options = options

    async def inspect(self, ref: WorkspaceRef) -> ObservedWorkspace | None:
        """What there is of one environment; see the port."""
        parts = await self.parts(ref)
        return observe(parts, self._options.cluster)

    async def parts(self, ref: WorkspaceRef) -> Parts:
        """The objects of one environment."""
        check_ref(ref)
        namespace = namespace_of(self._options.namespace_prefix, ref.user_id)
        name = workspace_name(ref.environment_id)
        record, pod, volume = await asyncio.gather(
            self._api.find("configmaps", namespace, name),
            self._api.find("pods", namespace, name),
            self._api.find("persistentvolumeclaims", namespace, name),
        )
        return Parts(record, pod, volume)

    async def list(self) -> Sequence[ObservedWorkspace]:
        """All environments; see the port."""
        records, pods, volumes = await asyncio.gather(
            self._found("configmaps", "record"),
            self._found("pods", "pod"),
            self._found("persistentvolumeclaims", "volume"),
        )
        everything = {**records, **pods, **volumes}
        found = (
            observe(Parts(records.get(key), pods.get(key), volumes.get(key)), self._options.cluster)
            for key in everything
        )
        return [observed for observed in found if observed is not None]

    async def watch(self) -> AsyncGenerator[ObservedWorkspace, None]:
        """Changes of every pod; see the port."""
        selector = f"{OURS},{PART}=pod"
        follower = Follower(self._api, "pods", query={"labelSelector": selector})
        async with aclosing(follower.changes()) as changes:
            async for change in changes:
                observed = await self._observe(change)
                if observed is not None:
                    yield observed

    async def _observe(self, change: Change) -> ObservedWorkspace | None:
        """A pod that is there speaks for itself; why one goes, only the record can tell."""
        pod = change.item
        if not self._is_ours(pod):
            return None
        if change.kind == DELETED or is_terminating(pod) or is_over(pod):
            return await self.inspect(ref_of(pod, self._options.cluster))
        return observe_pod(pod, self._options.cluster)

    async def _found(self, resource: str, part: str) -> dict[tuple[str, str], Object]:
        listing = await self._api.list(resource, labelSelector=f"{OURS},{PART}={part}")
        found = filter(self._is_ours, listing["items"])
        return {(item["metadata"]["namespace"], item["metadata"]["name"]): item for item in found}

    def _is_ours(self, item: Object) -> bool:
        """Not of another installation in the same cluster, which has another prefix."""
        user_id = ref_of(item, self._options.cluster).user_id
        return bool(item["metadata"]["namespace"] == namespace_of(self._options.namespace_prefix, user_id))
