"""The environment and what is said about it. Pure data; services/envs/domain.py decides."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from libs.common.contracts.clusters import DEFAULT_CLUSTER
from libs.common.contracts.environments import DesiredState, EnvironmentStatus, PullPolicy, Resources
from libs.common.contracts.events import EventData


class Command(StrEnum):
    """What a user can ask of an environment that exists."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    DELETE = "delete"


class Report(StrEnum):
    """What the orchestrator says about the current wish."""

    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    DELAYED = "delayed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Usage:
    """The latest sample, absolute: cpu in thousandths of a core, the others in bytes."""

    cpu_millis: float
    memory_bytes: int
    storage_bytes: int
    sampled_at: datetime


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment as users see it.

    `generation` rises with every wish that concerns the runtime, `version` with every write but those of usage and
    last access. `report_sequence` is the stream sequence of the last report applied to this generation but for delays;
    `delay_sequence` and `delay_reason` are those of its last delay, which is shown while it is the newer one. `slot` is
    the place it takes in the owner's plan, None once it is terminated. `cluster`: where its workspace is, as last
    reported. `stop_reason`: why its last wish was to stop, when it was not its owner's; shown while it is stopped.
    """

    id: str
    user_id: str
    name: str
    description: str | None
    template: str
    image: str
    web_port: int | None
    resources: Resources
    region: str | None
    startup_command: str | None
    variables_sealed: str | None
    status: EnvironmentStatus
    status_reason: str | None
    desired: DesiredState
    generation: int
    version: int
    report_sequence: int
    slot: int | None
    created_at: datetime
    updated_at: datetime
    installation_completed: bool = False
    last_accessed: datetime | None = None
    deleted_at: datetime | None = None
    usage: Usage | None = None
    image_pull_policy: PullPolicy | None = None
    cluster: str = DEFAULT_CLUSTER
    delay_sequence: int = 0
    delay_reason: str | None = None
    stop_reason: str | None = None

    @property
    def is_live(self) -> bool:
        """Whether the API still shows it."""
        return self.status is not EnvironmentStatus.TERMINATED


@dataclass(frozen=True, slots=True)
class Edit:
    """New values; None leaves a value as it is, an empty text clears it."""

    name: str | None = None
    description: str | None = None
    resources: Resources | None = None
    startup_command: str | None = None
    variables_sealed: str | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """A report as it arrived: for which wish, and where it stands in the stream."""

    report: Report
    generation: int
    sequence: int
    reason: str | None = None
    message: str | None = None
    cluster: str = DEFAULT_CLUSTER


@dataclass(frozen=True, slots=True)
class Change:
    """A decision: the environment before and after, and what has to be told in the same write."""

    before: Environment
    after: Environment
    events: tuple[EventData, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Nothing has to be written."""
        return self.after is self.before

    def comes_to(self, status: EnvironmentStatus) -> bool:
        """Whether the environment has this status now and had another."""
        return self.after.status is status and self.before.status is not status
