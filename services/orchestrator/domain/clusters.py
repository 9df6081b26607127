"""Clusters: what is known of them, how their health is judged, and where a new environment goes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from libs.common.contracts.clusters import (
    DEFAULT_CLUSTER,
    ClusterHealth,
    ClusterHealthChanged,
    ClusterRegistered,
    ClusterRemoved,
    ClusterState,
    ClusterStatus,
    ClusterUpdated,
)
from libs.runtime.port import RuntimeUnavailableError, WorkspaceRejectedError

# One lost answer is no outage.
FAILURES_UNTIL_UNREACHABLE = 2
# What a cluster without a capacity counts as beside those that have one.
_CAPACITY_OF_UNBOUNDED = 1000


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster. Its id is its name.

    `connection_sealed` is the orchestrator's access, `terminal_sealed` the terminal service's; both None for the
    cluster that the settings name. `default_since`: of several that have it, the latest is the default. `capacity`:
    environments it takes, None for any number. `failures`: checks that failed since the last that did not.
    """

    id: str
    region: str
    runtime: str
    created_at: datetime
    updated_at: datetime
    connection_sealed: str | None = None
    terminal_sealed: str | None = None
    default_since: datetime | None = None
    capacity: int | None = None
    status: ClusterStatus = ClusterStatus.ACTIVE
    health: ClusterHealth = ClusterHealth.UNKNOWN
    reason: str | None = None
    message: str | None = None
    failures: int = 0
    server_version: str | None = None
    version: int = 1

    @property
    def is_removed(self) -> bool:
        """Whether only this record is left."""
        return self.status is ClusterStatus.REMOVED

    @property
    def takes_new(self) -> bool:
        """Whether a new environment may come here, if there is room."""
        return self.status is ClusterStatus.ACTIVE and self.health is ClusterHealth.HEALTHY


@dataclass(frozen=True, slots=True)
class ClusterChange:
    """What to store in one write, on condition that the stored version is `before`."""

    before: int
    cluster: Cluster
    event: type[ClusterState] | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a health check found; `reason` and `message` say what is wrong, None when nothing is."""

    server_version: str | None = None
    reason: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class ClusterEdit:
    """New values; None leaves a value as it is. `capacity` 0 means any number."""

    region: str | None = None
    capacity: int | None = None
    is_default: bool | None = None
    status: ClusterStatus | None = None
    connection_sealed: str | None = None
    terminal_sealed: str | None = None


def default_of(clusters: Sequence[Cluster]) -> Cluster | None:
    """The cluster for environments that name no region: the one declared last, else the one that the settings name."""
    living = sorted((cluster for cluster in clusters if not cluster.is_removed), key=lambda cluster: cluster.id)
    declared = [cluster for cluster in living if cluster.default_since is not None]
    if declared:
        return max(declared, key=lambda cluster: cluster.default_since or cluster.created_at)
    return next((cluster for cluster in living if cluster.id == DEFAULT_CLUSTER), living[0] if living else None)


def registered(cluster: Cluster) -> ClusterChange:
    """A new cluster, or one that comes back after its removal."""
    return ClusterChange(cluster.version - 1, cluster, ClusterRegistered)


def edit(cluster: Cluster, wanted: ClusterEdit, now: datetime) -> ClusterChange:
    """Change what an operator may change."""
    capacity = cluster.capacity if wanted.capacity is None else wanted.capacity or None
    shared = cluster.terminal_sealed == cluster.connection_sealed
    after = replace(
        cluster,
        region=wanted.region or cluster.region,
        capacity=capacity,
        default_since=_default_since(cluster, wanted.is_default, now),
        status=wanted.status or cluster.status,
        connection_sealed=wanted.connection_sealed or cluster.connection_sealed,
        # A narrower access of the terminal service is never widened by renewing ours.
        terminal_sealed=wanted.terminal_sealed or (shared and wanted.connection_sealed) or cluster.terminal_sealed,
    )
    if after == cluster:
        return ClusterChange(cluster.version, cluster)
    return _changed(cluster, after, ClusterUpdated, now)


def removed(cluster: Cluster, now: datetime) -> ClusterChange:
    """Its credentials are forgotten; the record stays, so that environments that were on it are told the truth."""
    after = replace(
        cluster,
        status=ClusterStatus.REMOVED,
        health=ClusterHealth.UNKNOWN,
        connection_sealed=None,
        terminal_sealed=None,
        default_since=None,
        reason=None,
        message=None,
        failures=0,
    )
    return _changed(cluster, after, ClusterRemoved, now)


def answered(cluster: Cluster, result: CheckResult) -> Cluster:
    """What one answer says of it, which is not yet what is made of it: see `checked`."""
    if result.message is None:
        return replace(
            cluster, health=ClusterHealth.HEALTHY, reason=None, message=None, server_version=result.server_version
        )
    return replace(cluster, health=ClusterHealth.UNREACHABLE, reason=result.reason, message=result.message)


def checked(cluster: Cluster, result: CheckResult, now: datetime) -> ClusterChange:
    """What a health check makes of it. A cluster that was never reached is unreachable at once."""
    failures = 0 if result.message is None else cluster.failures + 1
    patient = cluster.health is ClusterHealth.HEALTHY and 0 < failures < FAILURES_UNTIL_UNREACHABLE
    after = replace(cluster if patient else answered(cluster, result), failures=failures)
    if after.health is not cluster.health:
        return _changed(cluster, after, ClusterHealthChanged, now)
    return ClusterChange(cluster.version, after)


def contenders(clusters: Sequence[Cluster], region: str | None) -> list[Cluster]:
    """The clusters that `place` chooses from, by their load."""
    wanted = _wanted_region(clusters, region)
    return [cluster for cluster in clusters if cluster.takes_new and cluster.region == wanted]


def place(clusters: Sequence[Cluster], region: str | None, load: Mapping[str, int]) -> Cluster:
    """Where a new environment goes: in its region, else where the default is; of those with room, the emptiest.

    `load`: environments that each of the contenders has. Raises WorkspaceRejectedError for a region that does not
    exist, and RuntimeUnavailableError when nothing in it can take one just now.
    """
    living = [cluster for cluster in clusters if not cluster.is_removed]
    default = default_of(living)
    if region is None and default is not None and _has_room(default, load) and default.takes_new:
        return default
    wanted = _wanted_region(living, region)
    here = [cluster for cluster in living if cluster.region == wanted]
    if not here:
        names = ", ".join(sorted({cluster.region for cluster in living})) or "none yet"
        raise WorkspaceRejectedError(f"There is no region {wanted!r}; there are: {names}.", reason="RegionUnknown")
    ready = contenders(living, region)
    fits = [cluster for cluster in ready if _has_room(cluster, load)]
    if not fits:
        raise _nowhere(wanted, here, ready)
    return min(fits, key=lambda cluster: (_fullness(cluster, load), load.get(cluster.id, 0), cluster.id))


def state_of(cluster: Cluster, *, is_default: bool) -> dict[str, object]:
    """The fields of a ClusterState."""
    return {
        "cluster_id": cluster.id,
        "region": cluster.region,
        "runtime": cluster.runtime,
        "is_default": is_default,
        "status": cluster.status,
        "health": cluster.health,
        "reason": cluster.reason,
        "message": cluster.message,
        "connection_sealed": cluster.terminal_sealed,
        "version": cluster.version,
    }


def _changed(before: Cluster, after: Cluster, event: type[ClusterState], now: datetime) -> ClusterChange:
    return ClusterChange(before.version, replace(after, version=before.version + 1, updated_at=now), event)


def _default_since(cluster: Cluster, wanted: bool | None, now: datetime) -> datetime | None:
    if wanted is None:
        return cluster.default_since
    return (cluster.default_since or now) if wanted else None


def _wanted_region(clusters: Sequence[Cluster], region: str | None) -> str | None:
    default = default_of(clusters)
    return region or (default.region if default else None)


def _has_room(cluster: Cluster, load: Mapping[str, int]) -> bool:
    return cluster.capacity is None or load.get(cluster.id, 0) < cluster.capacity


def _fullness(cluster: Cluster, load: Mapping[str, int]) -> float:
    return load.get(cluster.id, 0) / (cluster.capacity or _CAPACITY_OF_UNBOUNDED)


def _nowhere(region: str | None, here: Sequence[Cluster], ready: Sequence[Cluster]) -> RuntimeUnavailableError:
    if ready:
        return RuntimeUnavailableError(f"The region {region} is full at the moment.", reason="RegionFull")
    if all(cluster.status is ClusterStatus.DRAINING for cluster in here):
        text = f"The region {region} takes no new environments at the moment."
        return RuntimeUnavailableError(text, reason="RegionDraining")
    why = next((cluster.message for cluster in here if cluster.message), None)
    text = f"The region {region} cannot be reached at the moment" + (f": {why}" if why else ".")
    return RuntimeUnavailableError(text, reason="ClusterUnreachable")
