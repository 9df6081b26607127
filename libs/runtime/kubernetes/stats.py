"""What a workspace uses: from the metrics API where a cluster has it, else from its node's kubelet.

Storage comes from the kubelet's volume statistics when they were read anyway, else from the workspace itself.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from libs.runtime.kubernetes.api import KubeApi, Object
from libs.runtime.kubernetes.errors import ApiError, ApiUnreachableError
from libs.runtime.kubernetes.execution import Execution
from libs.runtime.kubernetes.mapping import is_ready, is_terminating
from libs.runtime.kubernetes.names import CONTAINER, STORAGE_BYTES, check_ref, namespace_of, workspace_name
from libs.runtime.kubernetes.options import KubernetesOptions
from libs.runtime.kubernetes.scripts import used_space
from libs.runtime.port import WorkspaceNotFoundError, WorkspaceNotRunningError, WorkspaceRef, WorkspaceStats

# Counting a large workspace's files takes a while and the disk's time: not more often than this.
_STORAGE_AGE_S = 60.0
_STORAGE_S = 10.0
_MOST_REMEMBERED = 10_000
# A cluster without the metrics API, or one that does not let us read kubelets, rarely changes.
_MISSING_S = 300.0
_QUANTITY = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?)([A-Za-z]*)")
_UNITS: Mapping[str, float] = {
    **{"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15},
    **{"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50},
}


@dataclass(frozen=True, slots=True)
class Usage:
    """What one source knows; None for what it does not."""

    cpu_millis: float
    memory_bytes: int
    sampled_at: datetime
    storage_bytes: int | None = None


class Stats:
    """Samples of one cluster's pods. Remembers measurements of storage for a minute, and which sources are missing."""

    def __init__(self, api: KubeApi, execution: Execution, options: KubernetesOptions) -> None:
        self._api = api
        self._execution = execution
        self._options = options
        self._missing_until: dict[str, float] = {}
        self._storage: dict[str, tuple[float, int]] = {}

    async def sample(self, ref: WorkspaceRef) -> WorkspaceStats:
        """See `WorkspaceRuntime.stats`."""
        check_ref(ref)
        pod = await self._running(ref)
        usage = await self._from_metrics(pod) or await self._from_kubelet(pod)
        # Neither knows a pod of the last few seconds.
        usage = usage or Usage(0.0, 0, datetime.now(UTC))
        storage = usage.storage_bytes
        if storage is None:
            storage = await self._measured(ref, pod)
        return WorkspaceStats(usage.cpu_millis, usage.memory_bytes, storage, usage.sampled_at)

    async def _running(self, ref: WorkspaceRef) -> Object:
        namespace = namespace_of(self._options.namespace_prefix, ref.user_id)
        name = workspace_name(ref.environment_id)
        pod = await self._api.find("pods", namespace, name)
        if pod is not None and is_ready(pod) and not is_terminating(pod):
            return pod
        if pod is None and await self._api.find("configmaps", namespace, name) is None:
            raise WorkspaceNotFoundError("There is no such workspace.")
        raise WorkspaceNotRunningError("The workspace is not running.")

    async def _from_metrics(self, pod: Object) -> Usage | None:
        metadata = pod["metadata"]
        found = await self._ask("metrics", "pods.metrics.k8s.io", metadata["namespace"], metadata["name"])
        return from_metrics(found) if found is not None else None

    async def _from_kubelet(self, pod: Object) -> Usage | None:
        node = pod.get("spec", {}).get("nodeName")
        found = await self._ask("kubelet", "nodes", None, f"{node}/proxy/stats/summary") if node else None
        return from_summary(found, pod["metadata"]["uid"], _limit(pod)) if found is not None else None

    async def _ask(self, source: str, resource: str, namespace: str | None, name: str) -> Object | None:
        """None where the source is missing, or knows nothing of this pod yet."""
        if self._missing_until.get(source, 0.0) > time.monotonic():
            return None
        try:
            return await self._api.get(resource, namespace, name)
        except ApiError as error:
            # A metrics server that knows no such pod says so by its name; without one, the path itself is unknown.
            is_known = error.status == 404 and error.details.get("name")
            if not is_known and error.status in (401, 403, 404, 503):
                self._missing_until[source] = time.monotonic() + _MISSING_S
        except ApiUnreachableError:
            pass
        return None

    async def _measured(self, ref: WorkspaceRef, pod: Object) -> int:
        now = time.monotonic()
        uid = pod["metadata"]["uid"]
        at, used = self._storage.get(uid, (-_STORAGE_AGE_S, 0))
        if now - at < _STORAGE_AGE_S and used:
            return used
        try:
            code, said = await self._execution.answer(ref, used_space(_limit(pod)), _STORAGE_S)
            used = int(said.split()[0]) * 1024 if code == 0 and said.split() else used
        except (ApiError, ApiUnreachableError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            pass
        if len(self._storage) >= _MOST_REMEMBERED:
            self._storage.clear()
        self._storage[uid] = (now, used)
        return used


def _limit(pod: Object) -> int:
    return int((pod["metadata"].get("annotations") or {}).get(STORAGE_BYTES) or 0)


def from_metrics(found: Mapping[str, Any]) -> Usage | None:
    """What the metrics API says of a pod."""
    for container in found.get("containers") or []:
        if container.get("name") == CONTAINER:
            usage = container.get("usage") or {}
            at = datetime.fromisoformat(found["timestamp"])
            return Usage(quantity(usage.get("cpu", "0")) * 1000, int(quantity(usage.get("memory", "0"))), at)
    return None


def from_summary(found: Mapping[str, Any], pod_uid: str, storage_limit: int) -> Usage | None:
    """What a kubelet says of a pod among all of its node's. A volume on a file system far larger than the
    `storage_limit` shares it with others, so what is used of it says nothing."""
    for pod in found.get("pods") or []:
        if (pod.get("podRef") or {}).get("uid") == pod_uid:
            return _from_pod_summary(pod, storage_limit)
    return None


def _from_pod_summary(pod: Mapping[str, Any], storage_limit: int) -> Usage | None:
    volumes = [volume for volume in pod.get("volume") or [] if volume.get("pvcRef")]
    used = [volume.get("usedBytes") for volume in volumes if volume.get("capacityBytes", 0) * 4 <= storage_limit * 5]
    for container in pod.get("containers") or []:
        cpu, memory = container.get("cpu") or {}, container.get("memory") or {}
        if container.get("name") == CONTAINER and cpu.get("time"):
            return Usage(
                cpu.get("usageNanoCores", 0) / 1e6,
                int(memory.get("workingSetBytes", 0)),
                datetime.fromisoformat(cpu["time"]),
                used[0] if used else None,
            )
    return None


def quantity(text: str) -> float:
    """The number that a quantity such as `250m` or `64Mi` stands for."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is no quantity")
    return float(match[1]) * _UNITS[match[2]]
