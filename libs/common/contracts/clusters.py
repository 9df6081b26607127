"""Clusters as other services see them, and the events about them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from libs.common.contracts.base import EventData

DEFAULT_CLUSTER = "default"
"""The cluster that the settings name; with RUNTIME=local, this machine."""

CLUSTER_SEAL = "clusters"
"""Purpose of the seal on `ClusterState.connection_sealed`."""


class ClusterStatus(StrEnum):
    """What an operator wants of a cluster. A draining one gets no new environments; those it has go on."""

    ACTIVE = "active"
    DRAINING = "draining"
    REMOVED = "removed"


class ClusterHealth(StrEnum):
    """Whether a cluster answers us. Unknown: nobody has asked yet."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNREACHABLE = "unreachable"


class ClusterConnection(BaseModel):
    """How a registered cluster is reached and used. `kubeconfig` is parsed YAML; `context` None: its current one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kubeconfig: dict[str, Any] = Field(repr=False)
    context: str | None = None
    storage_class: str | None = None
    runtime_class: str | None = None
    blocked_cidrs: tuple[str, ...] = ()


class ClusterState(EventData):
    """All that others need to know of a cluster. A consumer keeps the newest `version`.

    `connection_sealed` is a `ClusterConnection` as JSON, sealed; None for the cluster that the settings name.
    """

    AGGREGATE_FIELD = "cluster_id"

    cluster_id: str
    region: str
    runtime: str
    is_default: bool
    status: ClusterStatus
    health: ClusterHealth
    reason: str | None = None
    message: str | None = None
    connection_sealed: str | None = Field(default=None, repr=False)
    version: int


class ClusterRegistered(ClusterState):
    """A cluster can be used from now on."""

    TYPE = "cluster.registered.v1"


class ClusterUpdated(ClusterState):
    """An operator has changed it: its region, credentials, status, or that it is the default."""

    TYPE = "cluster.updated.v1"


class ClusterHealthChanged(ClusterState):
    """It answers again, or does not any more; `reason` and `message` say why."""

    TYPE = "cluster.health_changed.v1"


class ClusterRemoved(ClusterState):
    """It is not used any more; what was on it is out of our reach."""

    TYPE = "cluster.removed.v1"


CLUSTER_EVENTS: tuple[type[EventData], ...] = (
    ClusterRegistered,
    ClusterUpdated,
    ClusterHealthChanged,
    ClusterRemoved,
)
