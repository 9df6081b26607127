"""What one environment consists of: a volume, its variables, a pod, a record and the log of pods that ended."""

from __future__ import annotations

import base64
from typing import Any

from libs.runtime.kubernetes.bootstrap import BOOT_COMMAND
from libs.runtime.kubernetes.names import (
    CONTAINER,
    ENVIRONMENT,
    ENVIRONMENT_NAME,
    GENERATION,
    HOME,
    SERVICE_ACCOUNT,
    STORAGE_BYTES,
    USER,
    WISH,
    hostname_of,
    labels_of,
    log_name,
    workspace_name,
)
from libs.runtime.kubernetes.options import KubernetesOptions
from libs.runtime.port import WorkspaceRef, WorkspaceSpec

Manifest = dict[str, Any]

_UID = 1000
_GRACE_SECONDS = 5
# Kubernetes would wait 300 s before it gives a lost node's pod up; the workspace is needed elsewhere sooner.
_NODE_LOST_SECONDS = 60
_MIN_CPU_MILLIS = 10
_MIN_MEMORY_BYTES = 16 << 20
_EPHEMERAL_REQUEST = "64Mi"


def volume_claim(options: KubernetesOptions, spec: WorkspaceSpec) -> Manifest:
    """The volume: named by the environment, never by a generation, so that it outlives every pod."""
    claim: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": str(spec.limits.storage_bytes)}},
    }
    if options.storage_class is not None:
        claim["storageClassName"] = options.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(spec.ref, "volume"),
        "spec": claim,
    }


def variables_secret(spec: WorkspaceSpec, environment: dict[str, str]) -> Manifest:
    """The workspace's environment. A Secret's data may hold any bytes, quotes and line breaks included."""
    data = {
        name: base64.b64encode(value.encode("utf-8", "surrogateescape")).decode() for name, value in environment.items()
    }
    metadata = _metadata(spec.ref, "variables", {GENERATION: str(spec.generation)})
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}


def record(spec: WorkspaceSpec, wish: str) -> Manifest:
    """What outlives the pod: whose environment it is, what is wanted, and (added later) which volume it has."""
    annotations = {GENERATION: str(spec.generation), WISH: wish, ENVIRONMENT_NAME: spec.name}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(spec.ref, "record", annotations)}


def kept_log(ref: WorkspaceRef, content: bytes) -> Manifest:
    """The last lines of pods that are gone."""
    metadata = _metadata(ref, "log")
    metadata["name"] = log_name(ref.environment_id)
    data = {"log": base64.b64encode(content).decode()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": data}


def pod(options: KubernetesOptions, spec: WorkspaceSpec) -> Manifest:
    """The workspace.

    It is never restarted in place: an end must be seen, told and judged by whoever wanted the workspace to run, and a
    restart behind their back would hide it, with a new process table under the terminals of the old one.
    """
    annotations = {GENERATION: str(spec.generation), STORAGE_BYTES: str(spec.limits.storage_bytes)}
    pod_spec: Manifest = {
        "restartPolicy": "Never",
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _UID,
            "runAsGroup": _UID,
            "fsGroup": _UID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [
            {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute"}
            | {"tolerationSeconds": _NODE_LOST_SECONDS}
            for key in ("not-ready", "unreachable")
        ],
        "containers": [_container(options, spec)],
        "volumes": [
            {
                "name": "workspace",
                "persistentVolumeClaim": {"claimName": workspace_name(spec.ref.environment_id)},
            }
        ],
    }
    hostname = hostname_of(spec.name)
    if hostname is not None:
        pod_spec["hostname"] = hostname
    if options.runtime_class is not None:
        pod_spec["runtimeClassName"] = options.runtime_class
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata(spec.ref, "pod", annotations), "spec": pod_spec}


def _container(options: KubernetesOptions, spec: WorkspaceSpec) -> Manifest:
    return {
        "name": CONTAINER,
        "image": spec.image,
        "imagePullPolicy": spec.image_pull_policy or options.pull_policy,
        "command": list(BOOT_COMMAND),
        "workingDir": HOME,
        "envFrom": [{"secretRef": {"name": workspace_name(spec.ref.environment_id)}}],
        "resources": _resources(options, spec),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "workspace", "mountPath": HOME}],
    }


def _resources(options: KubernetesOptions, spec: WorkspaceSpec) -> Manifest:
    cpu, memory = spec.limits.cpu_millis, spec.limits.memory_bytes
    cpu_request = min(cpu, max(_MIN_CPU_MILLIS, round(cpu * options.cpu_request_share)))
    memory_request = min(memory, max(_MIN_MEMORY_BYTES, round(memory * options.memory_request_share)))
    return {
        "limits": {
            "cpu": f"{cpu}m",
            "memory": str(memory),
            "ephemeral-storage": str(options.ephemeral_storage_bytes),
        },
        "requests": {
            "cpu": f"{cpu_request}m",
            "memory": str(memory_request),
            "ephemeral-storage": _EPHEMERAL_REQUEST,
        },
    }


def _metadata(ref: WorkspaceRef, part: str, annotations: dict[str, str] | None = None) -> Manifest:
    return {
        "name": workspace_name(ref.environment_id),
        "labels": labels_of(ref, part),
        "annotations": {USER: ref.user_id, ENVIRONMENT: ref.environment_id, **(annotations or {})},
    }
