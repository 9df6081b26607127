"""Calls to the machines that workspaces run on."""

from __future__ import annotations

from prometheus_client import Histogram

from libs.common.metrics.registry import Metrics
from libs.runtime.timed import Observe

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0)


def runtime_observer(metrics: Metrics) -> Observe:
    """What drivers are timed with."""
    calls = Histogram(
        "devpocket_runtime_call_duration_seconds",
        "Seconds that a call to the runtime took, by operation and outcome: ok, unavailable, rejected, refused, "
        "cancelled, failed.",
        ("operation", "outcome"),
        buckets=_BUCKETS_S,
        registry=metrics.registry,
    )

    def observe(operation: str, outcome: str, seconds: float) -> None:
        calls.labels(operation, outcome).observe(seconds)

    return observe
