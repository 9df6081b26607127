"""What the objects of an environment say together, as the port's ObservedWorkspace. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.runtime.kubernetes.names import ENVIRONMENT, GENERATION, USER, VOLUME_UID, WISH
from libs.runtime.kubernetes.trouble import Trouble, container_status, why_ended, why_waiting
from libs.runtime.port import ObservedWorkspace, WorkspacePhase, WorkspaceRef

Object = Mapping[str, Any]

# What a record says is wanted. STARTING: asked for, and no pod was made for it yet.
WISH_STARTING, WISH_RUNNING, WISH_STOPPED = "starting", "running", "stopped"

VOLUME_LOST = Trouble(
    "VolumeLost",
    "The workspace's volume is gone: somebody deleted it in the cluster, and the files with it. Nothing new is put in "
    "its place. Delete the environment, or have an operator restore the volume.",
    final=True,
)
VOLUME_ENDING = Trouble(
    "VolumeTerminating",
    "Somebody deleted the workspace's volume in the cluster: it goes, with the files, as soon as the workspace's pod "
    "ends. The pod is left alone until then, so that an operator can save the files. Nothing new is put in its place.",
    final=True,
)
POD_GONE = Trouble("PodDeleted", "The workspace's pod was deleted in the cluster, not by us.")
POD_ENDING = Trouble("PodTerminating", "The workspace's pod is being deleted in the cluster.")
NODE_LOST = Trouble("NodeLost", "The node that ran the workspace does not answer any more.")


@dataclass(frozen=True, slots=True)
class Parts:
    """The objects of one environment; each may be missing."""

    record: Object | None
    pod: Object | None
    volume: Object | None


def observe(parts: Parts, cluster: str) -> ObservedWorkspace | None:
    """What there is, or None when there is nothing."""
    known = parts.record or parts.pod or parts.volume
    if known is None:
        return None
    ref = ref_of(known, cluster)
    if parts.pod is not None:
        return _with_record(observe_pod(parts.pod, cluster), parts)
    generation = generation_of(parts.record) if parts.record is not None else 0
    if is_volume_lost(parts.record, parts.volume):
        return _observed(ref, generation, WorkspacePhase.FAILED, VOLUME_LOST)
    if _annotation(parts.record, WISH) == WISH_RUNNING:
        return _observed(ref, generation, WorkspacePhase.FAILED, POD_GONE)
    return ObservedWorkspace(ref, generation, WorkspacePhase.STOPPED)


def observe_pod(pod: Object, cluster: str) -> ObservedWorkspace:
    """What a pod says of itself."""
    ref, generation = ref_of(pod, cluster), generation_of(pod)
    status = pod.get("status", {})
    if is_over(pod):
        return _observed(ref, generation, WorkspacePhase.FAILED, why_ended(pod))
    if is_terminating(pod):
        trouble = NODE_LOST if _is_node_silent(status) else POD_ENDING
        return _observed(ref, generation, WorkspacePhase.FAILED, trouble)
    if is_ready(pod):
        return ObservedWorkspace(ref, generation, WorkspacePhase.RUNNING, started_at=started_at(pod))
    if _is_node_silent(status):
        return _observed(ref, generation, WorkspacePhase.FAILED, NODE_LOST)
    return _observed(ref, generation, WorkspacePhase.STARTING, why_waiting(pod))


def is_over(pod: Object) -> bool:
    """Its processes have ended, and it will never start again."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def is_terminating(pod: Object) -> bool:
    """Its deletion was asked for."""
    return bool(pod.get("metadata", {}).get("deletionTimestamp"))


def is_ready(pod: Object) -> bool:
    """`exec` works."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(entry.get("type") == "Ready" and entry.get("status") == "True" for entry in conditions)


def is_volume_lost(record: Object | None, volume: Object | None) -> bool:
    """The record knows of a volume, and what is there is not that one, or nothing usable."""
    uid = _annotation(record, VOLUME_UID)
    if not uid:
        return False
    if volume is None:
        return True
    same = volume.get("metadata", {}).get("uid") == uid
    return not same or is_terminating(volume) or volume.get("status", {}).get("phase") == "Lost"


def ref_of(item: Object, cluster: str) -> WorkspaceRef:
    """Which workspace an object of ours belongs to."""
    metadata = item.get("metadata", {})
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    environment_id = annotations.get(ENVIRONMENT) or labels.get(ENVIRONMENT) or ""
    return WorkspaceRef(environment_id, annotations.get(USER) or labels.get(USER) or "", cluster)


def generation_of(item: Object | None) -> int:
    """The wish an object was made for; 0 when it does not say."""
    text = _annotation(item, GENERATION)
    return int(text) if text.isdigit() else 0


def started_at(pod: Object) -> datetime | None:
    """When the workspace's container started, else the pod."""
    running = container_status(pod).get("state", {}).get("running") or {}
    text = running.get("startedAt") or pod.get("status", {}).get("startTime")
    return datetime.fromisoformat(str(text)) if text else None


def _with_record(observed: ObservedWorkspace, parts: Parts) -> ObservedWorkspace:
    phase, trouble = observed.phase, None
    if phase is WorkspacePhase.RUNNING and is_volume_lost(parts.record, parts.volume):
        phase, trouble = WorkspacePhase.FAILED, VOLUME_ENDING
    wish = _annotation(parts.record, WISH)
    if observed.reason == POD_ENDING.reason and parts.pod is not None and wish != WISH_RUNNING:
        # It is we who end it: to put a newer one in its place, or because it shall stop.
        still_there = WorkspacePhase.RUNNING if is_ready(parts.pod) else WorkspacePhase.STOPPED
        phase = WorkspacePhase.STARTING if wish == WISH_STARTING else still_there
        trouble = POD_ENDING
    if trouble is None:
        return observed
    return _observed(observed.ref, observed.generation, phase, trouble, observed.started_at)


def _is_node_silent(status: Object) -> bool:
    if status.get("reason") == "NodeLost" or status.get("phase") == "Unknown":
        return True
    for entry in status.get("conditions") or []:
        if entry.get("type") == "DisruptionTarget" and entry.get("reason") == "DeletionByTaintManager":
            return bool(entry.get("status") == "True")
    return False


def _annotation(item: Object | None, name: str) -> str:
    annotations = (item or {}).get("metadata", {}).get("annotations") or {}
    return str(annotations.get(name) or "")


def _observed(
    ref: WorkspaceRef,
    generation: int,
    phase: WorkspacePhase,
    trouble: Trouble | None,
    started: datetime | None = None,
) -> ObservedWorkspace:
    reason, message = (trouble.reason, trouble.message) if trouble is not None else (None, None)
    return ObservedWorkspace(ref, generation, phase, reason, message, started)
