"""What the orchestrator may say about one wish and about clusters, and what must come of it in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from libs.common.contracts.clusters import (
    ClusterHealth,
    ClusterRegistered,
    ClusterRemoved,
    ClusterState,
    ClusterStatus,
    ClusterUpdated,
)
from libs.common.contracts.environments import EnvironmentStatus as Status
from libs.common.contracts.events import (
    RuntimeDelayed,
    RuntimeDeleted,
    RuntimeFailed,
    RuntimeReport,
    RuntimeRunning,
    RuntimeStopped,
)
from libs.common.ids import new_id
from services.envs.entities import Environment
from services.envs.ports import EnvironmentStore
from services.envs.service.reports import ReportService
from tests.unit.envs.makers import NOW, an_environment

Numbered = tuple[int, RuntimeReport]

_WISHES: dict[Status, tuple[tuple[type[RuntimeReport], ...], type[RuntimeReport] | None]] = {
    Status.CREATING: ((RuntimeRunning, RuntimeFailed, RuntimeDelayed), None),
    Status.STARTING: ((RuntimeRunning, RuntimeFailed, RuntimeDelayed), None),
    Status.RESTARTING: ((RuntimeRunning, RuntimeFailed, RuntimeDelayed), None),
    Status.STOPPING: ((RuntimeFailed, RuntimeDelayed), RuntimeStopped),
    Status.TERMINATING: ((RuntimeFailed, RuntimeDelayed), RuntimeDeleted),
}
"""By the status that a wish brings: what may be said any number of times, and what ends it."""


@dataclass(frozen=True, slots=True)
class Story:
    """An environment after a wish, and the reports about it in the order of the stream."""

    environment: Environment
    reports: list[Numbered]


@st.composite
def _stories(draw: st.DrawFn) -> Story:
    status = draw(st.sampled_from(list(_WISHES)))
    repeated, last = _WISHES[status]
    kinds = draw(st.lists(st.sampled_from(repeated), min_size=1, max_size=6))
    if last is not None and draw(st.booleans()):
        kinds.append(last)
    environment = an_environment(status, id=new_id(), user_id=new_id())
    reports = [
        (
            number,
            kind(
                environment_id=environment.id,
                user_id=environment.user_id,
                generation=environment.generation,
                runtime="kubernetes",
                cluster=draw(st.sampled_from(["default", "eu-1", "us-1"])),
                reason=draw(st.sampled_from(["NoRoom", "ImagePullBackOff"])),
                message=draw(st.sampled_from(["It waits.", "It cannot."])),
            ),
        )
        for number, kind in enumerate(kinds, 1)
    ]
    return Story(environment, reports)


stories: st.SearchStrategy[Story] = _stories()


async def apply(store: EnvironmentStore, environment: Environment, arrivals: Sequence[Numbered]) -> Environment:
    """The environment after these reports, each of which is repeated at once and changes nothing then."""
    await store.insert(environment, [])
    reports = ReportService(store, lambda: NOW)
    for sequence, report in arrivals:
        await reports.apply(report, sequence)
        once = await store.get(environment.id)
        await reports.apply(report, sequence)
        assert await store.get(environment.id) == once, "a repeated report changes nothing"
    found = await store.get(environment.id)
    assert found is not None
    return found


def seen_by_users(environment: Environment) -> dict[str, Any]:
    """What must not depend on the order."""
    names = ("status", "status_reason", "cluster", "installation_completed", "slot", "generation", "report_sequence")
    return {name: getattr(environment, name) for name in names}


@st.composite
def _cluster_histories(draw: st.DrawFn) -> list[ClusterState]:
    history: list[ClusterState] = []
    for cluster_id in draw(st.lists(st.sampled_from(["default", "eu-1", "us-1"]), min_size=1, max_size=3, unique=True)):
        for version in range(1, draw(st.integers(1, 4)) + 1):
            status = draw(st.sampled_from(ClusterStatus))
            kind = ClusterRegistered if version == 1 else ClusterUpdated
            history.append(
                (ClusterRemoved if status is ClusterStatus.REMOVED else kind)(
                    cluster_id=cluster_id,
                    region=draw(st.sampled_from(["europe", "america", "asia"])),
                    runtime="kubernetes",
                    is_default=cluster_id == "default",
                    status=status,
                    health=ClusterHealth.HEALTHY,
                    version=version,
                )
            )
    return history


cluster_histories: st.SearchStrategy[list[ClusterState]] = _cluster_histories()


def newest_regions(history: Sequence[ClusterState]) -> set[str]:
    """Regions that a new environment may name after all of it."""
    newest = {state.cluster_id: state for state in sorted(history, key=lambda state: state.version)}
    return {state.region for state in newest.values() if state.status is not ClusterStatus.REMOVED}
