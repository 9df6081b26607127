"""What the cluster itself needs: bare pods like those of environments, made with the official client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from kubernetes.aio import client
from kubernetes.aio.utils import create_from_dict

from libs.runtime.kubernetes.manifests import namespace as namespace_manifests
from libs.runtime.kubernetes.manifests import workspace as manifests
from libs.runtime.kubernetes.names import MANAGED_BY, namespace_of
from libs.runtime.kubernetes.options import KubernetesOptions
from libs.runtime.port import WorkspaceLimits, WorkspaceRef, WorkspaceSpec
from tests.bench.kube.watch import PodWatch

_USER = "bare"
_LOOK_AGAIN_S = 0.05
# Not ours, so that no orchestrator takes these pods for workspaces.
_NOT_OURS = {MANAGED_BY: "devpocket-bench"}


@dataclass(frozen=True)
class Burst:
    """Seconds since the first request until the last of them was answered, seen, ready and (ours) told as running."""

    answered: float
    added: float
    ready: float
    running: float | None = None


class BarePods:
    """Pods in a namespace with the policies of a user's one; same image, limits and security as an environment's."""

    def __init__(
        self, api: client.CoreV1Api, watch: PodWatch, prefix: str, image: str, limits: WorkspaceLimits
    ) -> None:
        self._api = api
        self._watch = watch
        self._options = KubernetesOptions(namespace_prefix=prefix)
        self.namespace = namespace_of(prefix, _USER)
        self._image = image
        self._limits = limits
        self._rounds = 0

    @asynccontextmanager
    async def prepared(self) -> AsyncIterator[None]:
        """With the namespace there and settled, which no burst pays for."""
        policies = [manifest for _, manifest in namespace_manifests.policies(self._options, _USER)]
        for manifest in (namespace_manifests.namespace(self._options, _USER), *policies):
            manifest["metadata"]["labels"] |= _NOT_OURS
            await create_from_dict(self._api.api_client, manifest, namespace=self.namespace)
        await self._until_reckoned(namespace_manifests.resource_quota(self._options, _USER)["metadata"]["name"])
        try:
            yield
        finally:
            await self._api.delete_namespace(self.namespace)

    async def burst(self, count: int, *, with_volume: bool = False) -> Burst:
        """`count` pods at once; they are gone again when this returns."""
        self._rounds += 1
        names = [f"bare-{self._rounds}-{number}" for number in range(count)]
        pods = [self._pod(name, with_volume=with_volume) for name in names]
        claims = [self._claim(name) if with_volume else None for name in names]
        started = time.perf_counter()
        answered = await asyncio.gather(*map(self._create, pods, claims))
        seen = await asyncio.gather(*(self._watch.ready(name) for name in names))
        await asyncio.gather(*(self._delete(name, with_volume=with_volume) for name in names))
        return Burst(
            max(answered) - started,
            max(pod.added for pod in seen) - started,
            max(pod.ready or 0.0 for pod in seen) - started,
        )

    async def _create(self, pod: client.V1Pod, claim: client.V1PersistentVolumeClaim | None) -> float:
        if claim is not None:
            await self._api.create_namespaced_persistent_volume_claim(self.namespace, claim)
        await self._api.create_namespaced_pod(self.namespace, pod)
        return time.perf_counter()

    def _pod(self, name: str, *, with_volume: bool) -> client.V1Pod:
        pod = _named(manifests.pod(self._options, self._spec(name)), name)
        # The variables are the one thing left out: their Secret would be a request that bare pods do not need.
        pod["spec"]["containers"][0].pop("envFrom")
        source = {"persistentVolumeClaim": {"claimName": name}} if with_volume else {"emptyDir": {}}
        pod["spec"]["volumes"] = [{"name": "workspace", **source}]
        return client.V1Pod.model_validate(pod)

    def _claim(self, name: str) -> client.V1PersistentVolumeClaim:
        claim = _named(manifests.volume_claim(self._options, self._spec(name)), name)
        return client.V1PersistentVolumeClaim.model_validate(claim)

    def _spec(self, name: str) -> WorkspaceSpec:
        return WorkspaceSpec(WorkspaceRef(name, _USER), 1, name, self._image, self._limits)

    async def _delete(self, name: str, *, with_volume: bool) -> None:
        await self._api.delete_namespaced_pod(name, self.namespace, grace_period_seconds=1)
        if with_volume:
            await self._api.delete_namespaced_persistent_volume_claim(name, self.namespace)
        await self._watch.gone(name)

    async def _until_reckoned(self, quota: str) -> None:
        """Pods are refused until the cluster has reckoned a new quota up."""
        while True:
            status = (await self._api.read_namespaced_resource_quota(quota, self.namespace)).status
            if status is not None and status.hard:
                return
            await asyncio.sleep(_LOOK_AGAIN_S)


def _named(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    manifest["metadata"] = {"name": name, "labels": dict(_NOT_OURS)}
    return manifest
