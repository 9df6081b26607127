"""What envs tells Prometheus beside what every service does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from prometheus_client import Counter

from libs.common.clock import utc_now
from libs.common.metrics.families import Family, Reasons, Values
from libs.common.metrics.registry import Metrics
from services.envs.repository import EnvironmentRepository

_ENVIRONMENTS = Family(
    "devpocket_environments", "Environments of all users by status; every replica counts them all.", ("status",)
)
_OVERDUE = Family(
    "devpocket_environments_overdue",
    "Environments that are being created, started, stopped or deleted for longer than ENVIRONMENT_OVERDUE_SECONDS.",
)
# Begin at zero: the first failure of a kind is seen as a change. Others get their label when they happen.
_REASONS = (
    *("ClusterRemoved", "ClusterUnreachable", "CrashLoop", "CreateContainerConfigError", "ErrImagePull", "Evicted"),
    *("ImagePullBackOff", "InternalError", "InvalidImageName", "InvalidVariable", "MainProcessEnded"),
    *("MainProcessFailed", "NodeLost", "OOMKilled", "PodDeleted", "QuotaExceeded", "RegionFull", "RegionUnknown"),
    *("RuntimeTimeout", "RuntimeUnavailable", "SandboxFailed", "SandboxUnavailable", "SpecInvalid", "StartError"),
    *("StartFailed", "StartTimeout", "Unschedulable", "VariablesUnreadable", "VolumeError", "VolumePending"),
    *("WorkspaceEnded", "WorkspaceRejected", "Other"),
)


def failure_counter(metrics: Metrics) -> Callable[[str | None], None]:
    """Counts environments that have come to `error`, by the reason that the runtime gave."""
    reasons = Reasons(_REASONS)
    failures = Counter(
        "devpocket_environment_failures_total",
        "Environments that have come to the status error, by reason.",
        ("reason",),
        registry=metrics.registry,
    )
    for reason in _REASONS:
        failures.labels(reason)
    return lambda reason: failures.labels(reasons.label(reason)).inc()


def describe_environments(metrics: Metrics, environments: EnvironmentRepository, *, overdue_after_s: float) -> None:
    """How many there are, and how many of them take too long."""

    async def ask() -> Values:
        counts = await environments.count_by_status()
        overdue = await environments.count_overdue(utc_now() - timedelta(seconds=overdue_after_s))
        return {
            _ENVIRONMENTS.name: {(status.value,): count for status, count in counts.items()},
            _OVERDUE.name: {(): overdue},
        }

    metrics.ask([_ENVIRONMENTS, _OVERDUE], ask, keep_s=10.0)
