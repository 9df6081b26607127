"""Ensure, stop and delete: each looks at what is there and does what is missing, so each may be repeated."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from libs.runtime.kubernetes.api import KubeApi, Object
from libs.runtime.kubernetes.errors import ApiError
from libs.runtime.kubernetes.manifests import workspace as manifests
from libs.runtime.kubernetes.mapping import generation_of, is_over, is_terminating, observe_pod
from libs.runtime.kubernetes.names import check_ref, log_name, workspace_name
from libs.runtime.kubernetes.namespaces import Namespaces
from libs.runtime.kubernetes.observer import Observer
from libs.runtime.kubernetes.options import KubernetesOptions
from libs.runtime.kubernetes.podlogs import PodLogs
from libs.runtime.kubernetes.pods import Pods
from libs.runtime.kubernetes.records import Record, Records
from libs.runtime.kubernetes.variables import workspace_environment
from libs.runtime.kubernetes.volumes import Volumes
from libs.runtime.port import ObservedWorkspace, RuntimeUnavailableError, WorkspaceRef, WorkspaceSpec

# What a pod gets to end by itself when a newer one takes its place, and when its environment is deleted.
_REPLACE_GRACE_S = 5.0
_DELETE_GRACE_S = 1.0
# How often a namespace may vanish under us, or somebody else be quicker, before the caller should come back later.
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the lifecycle works with."""

    api: KubeApi
    options: KubernetesOptions
    namespaces: Namespaces
    records: Records
    volumes: Volumes
    pods: Pods
    logs: PodLogs
    observer: Observer


class Lifecycle:
    """The lifecycle of all workspaces of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def ensure(self, spec: WorkspaceSpec) -> ObservedWorkspace:
        """Make it run with this spec; see the port."""
        check_ref(spec.ref)
        # What cannot be is refused before anything that runs is touched.
        environment = workspace_environment(spec)
        for _ in range(_TRIES):
            try:
                observed = await self._ensure(spec, environment)
            except ApiError as error:
                if not error.is_namespace_gone:
                    raise
                await self._cluster.namespaces.wait_until_gone(self._namespace(spec.ref))
                continue
            if observed is not None:
                return observed
        raise RuntimeUnavailableError("The workspace is being changed by somebody else.", reason="WorkspaceBusy")

    async def _ensure(self, spec: WorkspaceSpec, environment: dict[str, str]) -> ObservedWorkspace | None:
        """None when something changed under us and it is to be tried again."""
        cluster = self._cluster
        namespace = await cluster.namespaces.ensure(spec.ref.user_id)
        record = await self._record(namespace, spec)
        if record is None:
            return None
        if record.generation > spec.generation:
            return await cluster.observer.inspect(spec.ref)
        record = await cluster.volumes.ensure(namespace, record, spec)
        pod = await self._pod(namespace, spec, environment)
        if pod is None:
            return None
        await cluster.records.note_pod(namespace, record)
        ready = await cluster.pods.wait_until_ready(namespace, pod)
        return observe_pod(ready, cluster.options.cluster)

    async def _record(self, namespace: str, spec: WorkspaceSpec) -> Record | None:
        """The record, noting this wish unless it holds a newer one; None to try again."""
        cluster = self._cluster
        record = await cluster.records.find(namespace, spec.ref.environment_id)
        if record is None:
            if await cluster.records.create(namespace, spec):
                await cluster.namespaces.claim(namespace, spec.ref.environment_id)
            record = await cluster.records.find(namespace, spec.ref.environment_id)
        if record is None or record.generation > spec.generation:
            return record
        return await cluster.records.begin(namespace, record, spec)

    async def _pod(self, namespace: str, spec: WorkspaceSpec, environment: dict[str, str]) -> Object | None:
        """The pod of this generation, made when it is not there; None to try again."""
        cluster = self._cluster
        name = workspace_name(spec.ref.environment_id)
        pod = await cluster.api.find("pods", namespace, name)
        if pod is not None:
            if generation_of(pod) >= spec.generation and not is_over(pod) and not is_terminating(pod):
                return pod
            await self._end(namespace, spec.ref, pod, _REPLACE_GRACE_S)
        await cluster.api.put("secrets", namespace, manifests.variables_secret(spec, environment))
        return await cluster.pods.create(namespace, manifests.pod(cluster.options, spec))

    async def stop(self, ref: WorkspaceRef, grace_s: float) -> None:
        """End the pod; see the port."""
        check_ref(ref)
        namespace = self._namespace(ref)
        await self._cluster.records.note_stop(namespace, ref.environment_id)
        pod = await self._cluster.api.find("pods", namespace, workspace_name(ref.environment_id))
        if pod is not None:
            await self._end(namespace, ref, pod, grace_s)

    async def delete(self, ref: WorkspaceRef) -> None:
        """Remove everything, the record last, so that a crash on the way leaves something to be found."""
        check_ref(ref)
        api, namespace, environment_id = self._cluster.api, self._namespace(ref), ref.environment_id
        name = workspace_name(environment_id)
        await self._cluster.records.note_stop(namespace, environment_id)
        pod = await api.find("pods", namespace, name)
        if pod is not None:
            await self._cluster.pods.delete(namespace, pod, _DELETE_GRACE_S)
        await asyncio.gather(
            self._cluster.volumes.delete(namespace, environment_id),
            api.delete("secrets", namespace, name),
            api.delete("configmaps", namespace, log_name(environment_id)),
        )
        await api.delete("configmaps", namespace, name)
        await self._cluster.namespaces.delete_if_empty(ref.user_id)

    async def _end(self, namespace: str, ref: WorkspaceRef, pod: Object, grace_s: float) -> None:
        async def end() -> None:
            await self._cluster.pods.delete(namespace, pod, grace_s)

        await self._cluster.logs.keep_while(namespace, ref, pod, end)

    def _namespace(self, ref: WorkspaceRef) -> str:
        return self._cluster.namespaces.name(ref.user_id)
