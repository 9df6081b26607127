"""What pods, records and volumes say together."""

from __future__ import annotations

from typing import Any

import pytest

from libs.runtime.kubernetes.mapping import Parts, observe
from libs.runtime.kubernetes.trouble import from_events
from libs.runtime.port import ObservedWorkspace, WorkspacePhase
from tests.unit.runtime.kubernetes.specs import REF, ended, make_pod, make_record, make_volume, waiting

RUNNING, STARTING = WorkspacePhase.RUNNING, WorkspacePhase.STARTING
STOPPED, FAILED = WorkspacePhase.STOPPED, WorkspacePhase.FAILED


def look(record: Any = None, pod: Any = None, volume: Any = None) -> ObservedWorkspace:
    """Observe; there must be something."""
    observed = observe(Parts(record, pod, volume), "default")
    assert observed is not None
    assert observed.ref == REF
    return observed


def test_nothing_is_nothing() -> None:
    assert observe(Parts(None, None, None), "default") is None


def test_a_ready_pod_runs() -> None:
    observed = look(make_record("running"), make_pod(), make_volume())
    assert (observed.phase, observed.generation, observed.reason) == (RUNNING, 3, None)
    assert observed.started_at is not None
    assert observed.started_at.tzinfo is not None


@pytest.mark.parametrize(
    ("wish", "phase", "reason"),
    [("stopped", STOPPED, None), ("starting", STOPPED, None), ("running", FAILED, "PodDeleted")],
)
def test_without_a_pod_the_record_tells_whether_one_is_missing(wish: str, phase: Any, reason: str | None) -> None:
    observed = look(make_record(wish), None, make_volume())
    assert (observed.phase, observed.reason, observed.generation) == (phase, reason, 3)


@pytest.mark.parametrize(
    "volume",
    [None, make_volume("another-uid"), make_volume(deletionTimestamp="2026-11-25T10:00:00Z")],
    ids=["missing", "replaced", "terminating"],
)
def test_a_volume_that_was_there_and_is_not_is_lost(volume: Any) -> None:
    observed = look(make_record("stopped"), None, volume)
    assert (observed.phase, observed.reason) == (FAILED, "VolumeLost")
    assert "volume" in (observed.message or "")


def test_a_volume_that_never_was_is_not_lost() -> None:
    assert look(make_record("starting", volume_uid=None)).phase is STOPPED


def test_a_volume_deleted_under_a_running_pod_is_told_while_it_runs() -> None:
    observed = look(make_record("running"), make_pod(), make_volume(deletionTimestamp="2026-11-25T10:00:00Z"))
    assert (observed.phase, observed.reason) == (FAILED, "VolumeTerminating")


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError"])
def test_what_a_container_waits_for(reason: str) -> None:
    pod = make_pod("Pending", ready=False, containerStatuses=waiting(reason, "the runtime's own words"))
    observed = look(make_record("running"), pod, make_volume())
    assert (observed.phase, observed.reason) == (STARTING, reason)
    assert "the runtime's own words" in (observed.message or "")
    assert not (observed.message or "").startswith("the runtime's")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("0/3 nodes are available: 3 Insufficient memory.", "Unschedulable"),
        ("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.", "VolumePending"),
        ('persistentvolumeclaim "ws-env-1" not found', "VolumePending"),
    ],
)
def test_what_the_scheduler_says(message: str, reason: str) -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    observed = look(make_record("running"), make_pod("Pending", conditions=[condition]), make_volume())
    assert (observed.phase, observed.reason) == (STARTING, reason)
    assert message in (observed.message or "")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"containerStatuses": ended(137, "OOMKilled")}, "OOMKilled"),
        ({"containerStatuses": ended(0, "Completed")}, "MainProcessEnded"),
        ({"containerStatuses": ended(3)}, "MainProcessFailed"),
        ({"containerStatuses": ended(128, "StartError", "no such file")}, "StartError"),
        ({"reason": "Evicted", "message": "low on resource: memory"}, "Evicted"),
        ({"reason": "NodeLost"}, "NodeLost"),
        ({"reason": "OutOfcpu"}, "OutOfcpu"),
        (
            {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]},
            "NodeLost",
        ),
    ],
)
def test_how_a_pod_ended(status: Any, reason: str) -> None:
    observed = look(make_record("running"), make_pod("Failed", ready=False, **status), make_volume())
    assert (observed.phase, observed.reason) == (FAILED, reason)
    assert observed.message
    assert observed.started_at is None


@pytest.mark.parametrize(("wish", "phase"), [("running", FAILED), ("starting", STARTING), ("stopped", RUNNING)])
def test_a_pod_that_goes_is_a_loss_only_when_it_is_not_us(wish: str, phase: Any) -> None:
    pod = make_pod()
    pod["metadata"]["deletionTimestamp"] = "2026-11-25T10:00:00Z"
    observed = look(make_record(wish), pod, make_volume())
    assert (observed.phase, observed.reason) == (phase, "PodTerminating")


def test_events_name_the_newest_warning() -> None:
    events = [
        {"type": "Warning", "reason": "FailedScheduling", "message": "no", "lastTimestamp": "2026-11-25T10:00:00Z"},
        {"type": "Warning", "reason": "FailedMount", "message": "busy", "lastTimestamp": "2026-11-25T10:00:05Z"},
        {"type": "Normal", "reason": "Scheduled", "message": "yes", "lastTimestamp": "2026-11-25T10:00:09Z"},
    ]
    trouble = from_events(events)
    assert trouble is not None
    assert trouble.reason == "VolumePending"
    assert "busy" in trouble.message
    assert from_events([]) is None
