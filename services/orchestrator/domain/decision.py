"""What to do next: one table over what is wanted, what was said about it, and what the runtime has. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum, auto

from libs.common.contracts.environments import DesiredState
from libs.runtime.port import ObservedWorkspace, WorkspacePhase
from services.orchestrator.domain.model import Environment, Limits, Said


class Have(Enum):
    """What the runtime has, seen from the wish at hand. DOWN: a volume without processes; OLD: an older wish runs."""

    NONE = auto()
    DOWN = auto()
    OLD = auto()
    STARTING = auto()
    READY = auto()


class Action(Enum):
    """The next step. HALT and PURGE repair drift without a report."""

    REST = auto()
    WAIT = auto()
    ANNOUNCE = auto()
    ENSURE = auto()
    CONFIRM = auto()
    LOSE = auto()
    GIVE_UP = auto()
    STOP = auto()
    HALT = auto()
    DELETE = auto()
    PURGE = auto()


_Row = tuple[Action, Action, Action, Action, Action]

# have:           NONE             DOWN             OLD              STARTING         READY
_BEGIN: _Row = (Action.ANNOUNCE, Action.ANNOUNCE, Action.ANNOUNCE, Action.ANNOUNCE, Action.CONFIRM)
_MAKE: _Row = (Action.ENSURE, Action.ENSURE, Action.ENSURE, Action.ENSURE, Action.CONFIRM)
_KEEP: _Row = (Action.LOSE, Action.LOSE, Action.LOSE, Action.LOSE, Action.REST)
_END: _Row = (Action.STOP, Action.STOP, Action.STOP, Action.STOP, Action.STOP)
_SILENT: _Row = (Action.REST, Action.REST, Action.HALT, Action.HALT, Action.HALT)
_ERASE: _Row = (Action.DELETE, Action.DELETE, Action.DELETE, Action.DELETE, Action.DELETE)
_BURIED: _Row = (Action.REST, Action.PURGE, Action.PURGE, Action.PURGE, Action.PURGE)

_TABLE: dict[DesiredState, dict[Said, _Row]] = {
    DesiredState.RUNNING: {
        Said.NOTHING: _BEGIN,
        Said.PROVISIONING: _MAKE,
        Said.LOST: _MAKE,
        Said.RUNNING: _KEEP,
        Said.FAILED: _SILENT,
        # A user who changes their mind makes a new generation, so these two are not met; the table is whole anyway.
        Said.STOPPED: _BEGIN,
        Said.DELETED: _BEGIN,
    },
    DesiredState.STOPPED: {**dict.fromkeys(Said, _END), Said.STOPPED: _SILENT, Said.FAILED: _SILENT},
    DesiredState.DELETED: {**dict.fromkeys(Said, _ERASE), Said.DELETED: _BURIED},
}
_COLUMNS = (Have.NONE, Have.DOWN, Have.OLD, Have.STARTING, Have.READY)
_EFFORTS = frozenset({Action.ENSURE, Action.STOP, Action.HALT, Action.DELETE, Action.PURGE})


def have(actual: ObservedWorkspace | None, generation: int) -> Have:
    """Where `actual` stands for the wish `generation`."""
    if actual is None:
        return Have.NONE
    if actual.phase in (WorkspacePhase.STOPPED, WorkspacePhase.FAILED):
        return Have.DOWN
    if actual.generation < generation:
        return Have.OLD
    return Have.READY if actual.phase is WorkspacePhase.RUNNING else Have.STARTING


def decide(
    environment: Environment,
    actual: ObservedWorkspace | None,
    *,
    now: datetime,
    limits: Limits,
    serving_since: datetime,
) -> Action:
    """The next step. `serving_since`: see `losses_after`."""
    row = _TABLE[environment.desired][environment.said]
    action = row[_COLUMNS.index(have(actual, environment.generation))]
    if action is Action.LOSE and len(losses_after(environment, now, limits, serving_since)) > limits.losses:
        return Action.GIVE_UP
    if action in _EFFORTS and _is_waiting(environment, now):
        return Action.WAIT
    if action is Action.REST and environment.said is Said.RUNNING and environment.delayed_by is not None:
        # It was out of sight, and users were told so.
        return Action.CONFIRM
    return action


def _is_waiting(environment: Environment, now: datetime) -> bool:
    progress = environment.progress
    if progress is None or progress.generation != environment.generation:
        return False
    return progress.retry_at is not None and progress.retry_at > now


def losses_after(
    environment: Environment, now: datetime, limits: Limits, serving_since: datetime
) -> tuple[datetime, ...]:
    """Recent losses, with the one seen now.

    What came up before this replica did is not counted: when the whole stack was restarted, its workspaces went with
    it, and that is no sign that they crash.
    """
    recent = tuple(at for at in environment.losses if now - at <= timedelta(seconds=limits.loss_window_s))
    came_up = environment.reported.at
    counts = came_up is not None and came_up > serving_since
    return (*recent, now) if counts else recent
