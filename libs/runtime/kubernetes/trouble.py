"""Why a pod does not run, in words a person can act on, with the cluster's own words beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from libs.runtime.kubernetes.names import CONTAINER

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trouble:
    """`reason` is stable CamelCase. `final`: waiting will not help, somebody has to change something."""

    reason: str
    message: str
    final: bool = False


# What a container waits for: its reason -> (our sentence, final).
_WAITING: Mapping[str, tuple[str, bool]] = {
    "ErrImagePull": ("The image cannot be pulled", False),
    "ImagePullBackOff": ("The image cannot be pulled", False),
    "RegistryUnavailable": ("The image's registry does not answer", False),
    "InvalidImageName": ("The template names an image that cannot be", True),
    "ErrImageNeverPull": ("The image is not on the node, and the pull policy is Never", False),
    "ImageInspectError": ("The image on the node is damaged", False),
    "CreateContainerConfigError": ("The container's settings are incomplete", False),
    "CreateContainerError": ("The container cannot be made", False),
    "RunContainerError": ("The container cannot be started", False),
    "CrashLoopBackOff": ("The workspace ends again and again right after it starts", False),
}
# Why a pod ended: the pod's own reason -> our sentence.
_POD_ENDED: Mapping[str, str] = {
    "Evicted": "The node ran out of memory or disk and evicted the workspace",
    "NodeLost": "The node that ran the workspace is lost",
    "NodeShutdown": "The node that ran the workspace was shut down",
    "Terminated": "The node that ran the workspace was shut down",
    "Shutdown": "The node that ran the workspace was shut down",
    "NodeAffinity": "The node that ran the workspace was taken out of use",
    "UnexpectedAdmissionError": "The node refused the workspace",
    "DeadlineExceeded": "The workspace ran longer than it may",
    "Preempting": "The workspace had to make room for something more important",
    "OutOfcpu": "The node had no cpu left when the workspace arrived",
    "OutOfmemory": "The node had no memory left when the workspace arrived",
    "OutOfpods": "The node had no room left when the workspace arrived",
}
_VOLUME_EVENTS = frozenset(
    {
        "FailedMount",
        "FailedAttachVolume",
        "FailedBinding",
        "ProvisioningFailed",
        "VolumeResizeFailed",
        "FailedMapVolume",
    }
)
_WAITING_FOR_CLAIM = ("unbound immediate persistentvolumeclaims", "persistentvolumeclaim")


def beside(sentence: str, said: str | None) -> str:
    """Our sentence with the cluster's words beside it."""
    words = (said or "").strip()
    return f"{sentence}. The cluster says: {words}" if words else f"{sentence}."


def container_status(pod: Object) -> Object:
    """The status of the workspace's container; empty before the node knows it."""
    for status in pod.get("status", {}).get("containerStatuses") or []:
        if status.get("name") == CONTAINER:
            return dict(status)
    return {}


def why_waiting(pod: Object) -> Trouble | None:
    """What a pod that has not started waits for, when the pod itself knows it."""
    waiting = container_status(pod).get("state", {}).get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason in _WAITING:
        sentence, final = _WAITING[reason]
        return Trouble(reason, beside(sentence, waiting.get("message")), final)
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _unscheduled(condition)
    return None


def _unscheduled(condition: Object) -> Trouble:
    said = condition.get("message") or ""
    if any(words in said.lower() for words in _WAITING_FOR_CLAIM):
        return Trouble("VolumePending", beside("The workspace's volume is not ready yet", said))
    if condition.get("reason") == "SchedulingGated":
        return Trouble("SchedulingGated", beside("The cluster holds the workspace back", said))
    return Trouble("Unschedulable", beside("No node of the cluster has room for the workspace", said))


def why_ended(pod: Object) -> Trouble:
    """Why a pod is over that nobody asked to end."""
    status = pod.get("status", {})
    reason = status.get("reason") or _disruption(status)
    if reason in _POD_ENDED:
        return Trouble(str(reason), beside(_POD_ENDED[str(reason)], status.get("message")))
    ended = container_status(pod).get("state", {}).get("terminated") or {}
    code, said = ended.get("exitCode"), ended.get("message") or status.get("message")
    if ended.get("reason") == "OOMKilled":
        return Trouble("OOMKilled", beside("The workspace used more memory than it may and was ended", said))
    if ended.get("reason") in {"ContainerCannotRun", "StartError"}:
        return Trouble("StartError", beside("The image's start command cannot be run", said))
    if code is None:
        return Trouble(str(reason or "PodEnded"), beside("The workspace ended", said))
    if code == 0:
        return Trouble("MainProcessEnded", beside("The workspace's main process ended", said))
    return Trouble("MainProcessFailed", beside(f"The workspace's main process ended with code {code}", said))


def _disruption(status: Object) -> str | None:
    reasons = {
        "EvictionByEvictionAPI": "Evicted",
        "TerminationByKubelet": "Evicted",
        "PreemptionByScheduler": "Preempting",
        "DeletionByTaintManager": "NodeLost",
        "DeletionByPodGC": "NodeLost",
    }
    for condition in status.get("conditions") or []:
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return reasons.get(condition.get("reason", ""))
    return None


def from_events(events: Iterable[Object]) -> Trouble | None:
    """What the newest warning about a pod says, or that its image is still on its way."""
    told = sorted(events, key=_last_seen)
    warnings = [event for event in told if event.get("type") == "Warning"]
    if not warnings:
        pulling = bool(told) and told[-1].get("reason") == "Pulling"
        words = beside("The image is still being pulled", told[-1].get("message")) if pulling else ""
        return Trouble("ImagePulling", words) if pulling else None
    newest = warnings[-1]
    reason, said = newest.get("reason") or "Warning", newest.get("message")
    if reason in _VOLUME_EVENTS:
        return Trouble("VolumePending", beside("The workspace's volume is not ready yet", said))
    if reason == "FailedScheduling":
        return _unscheduled({"message": said})
    if reason == "FailedCreatePodSandBox":
        return Trouble("SandboxFailed", beside("The node cannot set the workspace up", said))
    return Trouble(reason, beside("The workspace does not start", said))


def _last_seen(event: Object) -> str:
    return str(
        event.get("lastTimestamp") or event.get("eventTime") or event.get("metadata", {}).get("creationTimestamp")
    )
