"""Small objects for the tests of the kubernetes driver."""

from __future__ import annotations

from typing import Any

from libs.runtime.port import WorkspaceLimits, WorkspaceRef, WorkspaceSpec

REF = WorkspaceRef("env-1", "user-1")


def make_spec(**changes: Any) -> WorkspaceSpec:
    """A spec of one core, one GiB and five GiB."""
    values: dict[str, Any] = {
        "ref": REF,
        "generation": 3,
        "name": "engine",
        "image": "registry.example/python:1",
        "limits": WorkspaceLimits(cpu_millis=1000, memory_bytes=1 << 30, storage_bytes=5 << 30),
    }
    return WorkspaceSpec(**(values | changes))


def make_pod(phase: str = "Running", *, ready: bool = True, **status: Any) -> dict[str, Any]:
    """A pod as the API shows it."""
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {
            "name": "ws-env-1",
            "uid": "pod-uid",
            "labels": {"devpocket.io/environment": "env-1", "devpocket.io/user": "user-1"},
            "annotations": {"devpocket.io/user": "user-1", "devpocket.io/generation": "3"},
        },
        "spec": {"nodeName": "node-1"},
        "status": {"phase": phase, "startTime": "2026-11-25T10:00:00Z", "conditions": conditions} | status,
    }


def make_record(wish: str, *, volume_uid: str | None = "volume-uid", generation: int = 3) -> dict[str, Any]:
    """An environment's record."""
    annotations = {
        "devpocket.io/user": "user-1",
        "devpocket.io/environment": "env-1",
        "devpocket.io/wish": wish,
        "devpocket.io/generation": str(generation),
    }
    if volume_uid is not None:
        annotations["devpocket.io/volume-uid"] = volume_uid
    return {"metadata": {"name": "ws-env-1", "annotations": annotations, "resourceVersion": "1"}}


def make_volume(uid: str = "volume-uid", **metadata: Any) -> dict[str, Any]:
    """A bound volume claim."""
    return {"metadata": {"name": "ws-env-1", "uid": uid} | metadata, "status": {"phase": "Bound"}}


def waiting(reason: str, message: str = "") -> list[dict[str, Any]]:
    """Container statuses of a container that waits."""
    return [{"name": "workspace", "state": {"waiting": {"reason": reason, "message": message}}}]


def ended(code: int, reason: str = "Error", message: str = "") -> list[dict[str, Any]]:
    """Container statuses of a container that ended."""
    state = {"exitCode": code, "reason": reason, "message": message}
    return [{"name": "workspace", "state": {"terminated": state}}]
