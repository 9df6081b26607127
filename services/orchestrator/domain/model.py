"""One environment as the orchestrator knows it, and what it says about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from libs.common.contracts.clusters import DEFAULT_CLUSTER
from libs.common.contracts.environments import DesiredState
from libs.common.contracts.events import (
    RuntimeDeleted,
    RuntimeFailed,
    RuntimeLost,
    RuntimeProvisioning,
    RuntimeReport,
    RuntimeRunning,
    RuntimeStopped,
    WorkspaceTemplate,
)
from libs.runtime.port import WorkspaceRef


class Said(StrEnum):
    """The last report about the wish at hand. NOTHING: there was none, or it was about an older wish."""

    NOTHING = "nothing"
    PROVISIONING = "provisioning"
    RUNNING = "running"
    LOST = "lost"
    STOPPED = "stopped"
    FAILED = "failed"
    DELETED = "deleted"


SAID: dict[type[RuntimeReport], Said] = {
    RuntimeProvisioning: Said.PROVISIONING,
    RuntimeRunning: Said.RUNNING,
    RuntimeLost: Said.LOST,
    RuntimeStopped: Said.STOPPED,
    RuntimeFailed: Said.FAILED,
    RuntimeDeleted: Said.DELETED,
}
"""What each report says."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how often, in seconds; `losses` is the number within the window that is still fine."""

    provision_s: float = 300.0
    stop_s: float = 60.0
    delete_s: float = 300.0
    resync_s: float = 30.0
    losses: int = 5
    loss_window_s: float = 600.0
    # What takes less is not worth a word to the user.
    delay_s: float = 5.0

    def work_s(self, desired: DesiredState) -> float:
        """How long a wish may take."""
        by_state = {
            DesiredState.RUNNING: self.provision_s,
            DesiredState.STOPPED: self.stop_s,
            DesiredState.DELETED: self.delete_s,
        }
        return by_state[desired]


@dataclass(frozen=True, slots=True)
class WishCause:
    """The event that carried the wish, for the reports that follow from it. `trace` is W3C trace context."""

    correlation_id: str | None = None
    causation_id: str | None = None
    trace: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reported:
    """The last report that went out."""

    said: Said = Said.NOTHING
    generation: int = 0
    reason: str | None = None
    message: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Work on wish `generation`: failed attempts, when to give up, and not to try before `retry_at`."""

    generation: int
    attempts: int
    deadline_at: datetime
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment as the orchestrator knows it: the newest wish, the last report, the work in between.

    `cluster` is chosen once, before anything is made, and kept for life; None until then. `delayed_by` is the reason
    that was last reported as a delay, until the next report of another kind.
    """

    id: str
    user_id: str
    name: str
    region: str | None
    desired: DesiredState
    generation: int
    version: int
    spec: WorkspaceTemplate
    cause: WishCause = WishCause()
    reported: Reported = Reported()
    progress: Progress | None = None
    losses: tuple[datetime, ...] = ()
    cluster: str | None = None
    delayed_by: str | None = None

    @property
    def said(self) -> Said:
        """The last report, if it was about the wish at hand."""
        return self.reported.said if self.reported.generation == self.generation else Said.NOTHING

    @property
    def is_settled(self) -> bool:
        """Whether the wish at hand was answered; only drift remains to be repaired."""
        return self.said in _SETTLED[self.desired]

    @property
    def is_buried(self) -> bool:
        """Whether nothing but this record is left."""
        return self.desired is DesiredState.DELETED and self.said is Said.DELETED

    @property
    def ref(self) -> WorkspaceRef:
        """How the runtime calls its workspace."""
        return WorkspaceRef(self.id, self.user_id, self.cluster or DEFAULT_CLUSTER)


_SETTLED: dict[DesiredState, frozenset[Said]] = {
    DesiredState.RUNNING: frozenset({Said.RUNNING, Said.FAILED}),
    DesiredState.STOPPED: frozenset({Said.STOPPED, Said.FAILED}),
    DesiredState.DELETED: frozenset({Said.DELETED}),
}


@dataclass(frozen=True, slots=True)
class Report:
    """An event to send; the service knows the rest of its fields."""

    kind: type[RuntimeReport]
    reason: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What to store in one write. `look_again_at`: None means never by itself. `done`: let go of the lease."""

    environment: Environment
    look_again_at: datetime | None
    done: bool
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a step failed. `final`: the same step would fail again until somebody changes something."""

    reason: str
    message: str
    final: bool = False
