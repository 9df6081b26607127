"""What the orchestrator tells Prometheus beside what every service does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally

from prometheus_client import Counter, Histogram

from libs.common.contracts.clusters import ClusterHealth, ClusterStatus
from libs.common.metrics.families import Family, Reasons, Values
from libs.common.metrics.registry import Metrics
from services.orchestrator.domain.clusters import Cluster
from services.orchestrator.repository import MongoEnvironments
from services.orchestrator.service.reconcile import Reconciled, Reconciler
from services.orchestrator.service.registry import ClusterRegistry

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0)
_WORKSPACES = Family(
    "devpocket_workspaces",
    "Workspaces by what was last reported of them; every replica counts them all.",
    ("state",),
)
_FAILED = Family(
    "devpocket_workspaces_failed", "Workspaces that have failed and were not started again, by reason.", ("reason",)
)
_CLUSTERS = Family("devpocket_clusters", "Clusters by state: reachable, unreachable, unknown, draining.", ("state",))
_REACHABLE = {
    ClusterHealth.HEALTHY: "reachable",
    ClusterHealth.UNREACHABLE: "unreachable",
    ClusterHealth.UNKNOWN: "unknown",
}


class TimedReconciler:
    """A reconciler with a clock around it."""

    def __init__(self, reconciler: Reconciler, metrics: Metrics) -> None:
        self._reconciler = reconciler
        self._reasons = Reasons()
        self._durations = Histogram(
            "devpocket_reconcile_duration_seconds",
            "Seconds that work on one environment took, by outcome: done, setback (a step failed and is tried again or "
            "given up), skipped (nothing due, or another replica has it), failed (the database was away).",
            ("outcome",),
            buckets=_BUCKETS_S,
            registry=metrics.registry,
        )
        self._setbacks = Counter(
            "devpocket_reconcile_setbacks_total",
            "Steps of reconciling that failed, by reason; most are tried again.",
            ("reason",),
            registry=metrics.registry,
        )

    async def reconcile(
        self, environment_id: str, *, only_if_due: bool = False, nudge: asyncio.Event | None = None
    ) -> Reconciled:
        """See Reconciler."""
        started = time.perf_counter()
        outcome = "failed"
        try:
            result = await self._reconciler.reconcile(environment_id, only_if_due=only_if_due, nudge=nudge)
            outcome = _outcome(result)
        finally:
            self._durations.labels(outcome).observe(time.perf_counter() - started)
        for reason in result.setbacks:
            self._setbacks.labels(self._reasons.label(reason)).inc()
        return result


def describe_workspaces(metrics: Metrics, environments: MongoEnvironments, registry: ClusterRegistry) -> None:
    """How many there are in which state, and how the clusters are."""
    reasons = Reasons()

    async def ask() -> Values:
        counts = await environments.count_by_report()
        failed = await environments.count_failed()
        return {
            _WORKSPACES.name: {(said.value,): count for said, count in counts.items()},
            _FAILED.name: reasons.tally(failed),
        }

    def clusters() -> Values:
        states = dict.fromkeys((*_REACHABLE.values(), "draining"), 0)
        return {_CLUSTERS.name: {(state,): n for state, n in (states | _states(registry)).items()}}

    metrics.ask([_WORKSPACES, _FAILED], ask, keep_s=10.0)
    metrics.read([_CLUSTERS], clusters)


def _states(registry: ClusterRegistry) -> Tally[str]:
    return Tally(_state(cluster) for cluster in registry.clusters)


def _state(cluster: Cluster) -> str:
    state = _REACHABLE[cluster.health]
    # One that is being emptied and cannot be reached is first of all unreachable: workspaces are still in it.
    return "draining" if cluster.status is ClusterStatus.DRAINING and state != "unreachable" else state


def _outcome(result: Reconciled) -> str:
    if not result.worked:
        return "skipped"
    return "setback" if result.setbacks else "done"
