"""What one step changes: the new record, the report that goes out with it, and when to look again. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from libs.common.contracts.environments import DesiredState
from libs.common.contracts.events import (
    RuntimeDelayed,
    RuntimeDeleted,
    RuntimeFailed,
    RuntimeLost,
    RuntimeProvisioning,
    RuntimeReport,
    RuntimeRunning,
    RuntimeStopped,
)
from libs.runtime.port import ObservedWorkspace
from services.orchestrator.domain.decision import losses_after
from services.orchestrator.domain.model import Change, Environment, Limits, Progress, Report, Reported, Said, Trouble

_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 30.0
# Past its deadline a deletion is still retried: leaving a workspace behind costs more than one call in five minutes.
_LONGEST_DELETE_RETRY_S = 300.0
# After a long outage an attempt begins past its deadline; it still deserves a fair chance.
_SHORTEST_ATTEMPT_S = 30.0


def rest(environment: Environment, now: datetime, limits: Limits) -> Change:
    """All is as wanted. Only a tombstone needs no further look."""
    look_again_at = None if environment.is_buried else _after(now, limits.resync_s)
    return Change(replace(environment, progress=None), look_again_at, done=True)


def wait(environment: Environment, now: datetime) -> Change:
    """An attempt failed a moment ago; the next has its time."""
    retry_at = environment.progress.retry_at if environment.progress else None
    return Change(environment, retry_at or now, done=True)


def announce(environment: Environment, now: datetime, limits: Limits) -> Change:
    """Work on the wish begins, and with it the time it may take."""
    begun = replace(environment, progress=_fresh(environment, now, limits))
    return _say(begun, Said.PROVISIONING, RuntimeProvisioning, now, look_again_at=now, done=False)


def confirm(environment: Environment, now: datetime, limits: Limits) -> Change:
    """The workspace is ready."""
    return _say(
        replace(environment, progress=None),
        Said.RUNNING,
        RuntimeRunning,
        now,
        look_again_at=_after(now, limits.resync_s),
        done=True,
    )


def lose(
    environment: Environment,
    actual: ObservedWorkspace | None,
    now: datetime,
    limits: Limits,
    serving_since: datetime,
) -> Change:
    """The workspace is gone; it is brought back at once, and more slowly when it keeps going."""
    losses = losses_after(environment, now, limits, serving_since)
    retry_at = _after(now, backoff_s(len(losses) - 1)) if len(losses) > 1 else None
    begun = replace(environment, losses=losses, progress=replace(_fresh(environment, now, limits), retry_at=retry_at))
    reason, message = _why_lost(actual)
    return _say(
        begun,
        Said.LOST,
        RuntimeLost,
        now,
        look_again_at=retry_at or now,
        done=False,
        reason=reason,
        message=message,
    )


def crash_looped(environment: Environment, now: datetime, limits: Limits) -> Change:
    """The workspace keeps ending by itself."""
    minutes = round(limits.loss_window_s / 60)
    trouble = Trouble(
        "CrashLoop",
        f"The workspace ended by itself more than {limits.losses} times within {minutes} minutes and is not started "
        "again. Check its startup command and its logs, then start the environment.",
    )
    return _fail(replace(environment, losses=()), trouble, now)


def stopped(environment: Environment, now: datetime, limits: Limits) -> Change:
    """Nothing of the workspace runs."""
    rested = replace(environment, progress=None, losses=())
    again = _after(now, limits.resync_s)
    return _say(rested, Said.STOPPED, RuntimeStopped, now, look_again_at=again, done=True)


def deleted(environment: Environment, now: datetime, limits: Limits) -> Change:
    """Nothing of the workspace is left; what remains is a tombstone, which late events cannot revive.

    It is looked at once more: a start that was on its way when the deletion came must not leave anything behind.
    """
    tombstone = replace(environment, progress=None, losses=())
    again = _after(now, limits.resync_s)
    return _say(tombstone, Said.DELETED, RuntimeDeleted, now, look_again_at=again, done=True)


def repaired(environment: Environment, now: datetime, limits: Limits) -> Change:
    """Something was there that should not be, and is gone now."""
    return Change(replace(environment, progress=None), _after(now, limits.resync_s), done=True)


def setback(environment: Environment, trouble: Trouble, *, began: datetime, now: datetime, limits: Limits) -> Change:
    """An attempt failed: try again later, or say that the wish cannot be fulfilled.

    What was answered already (a running workspace whose runtime cannot be asked just now) never fails by waiting, and
    a deletion never gives up. What holds it up is reported once it has done so for a while.
    """
    progress = _current(environment, began, limits)
    may_fail = environment.desired is not DesiredState.DELETED and not environment.is_settled
    if may_fail and trouble.final:
        return _fail(environment, trouble, now)
    if may_fail and now >= progress.deadline_at:
        return _fail(environment, _too_late(environment.desired, trouble, limits), now)
    longest_s = _LONGEST_RETRY_S
    if environment.desired is DesiredState.DELETED and now >= progress.deadline_at:
        longest_s = _LONGEST_DELETE_RETRY_S
    attempts = progress.attempts + 1
    retry_at = _after(now, backoff_s(attempts, longest_s=longest_s))
    if may_fail:
        retry_at = min(retry_at, max(progress.deadline_at, now))
    after = replace(environment, progress=replace(progress, attempts=attempts, retry_at=retry_at))
    begun_at = progress.deadline_at - timedelta(seconds=limits.work_s(environment.desired))
    is_late = now - begun_at >= timedelta(seconds=limits.delay_s)
    concerns_user = not environment.is_settled or environment.said is Said.RUNNING
    if not (is_late and concerns_user) or trouble.reason == environment.delayed_by:
        return Change(after, retry_at, done=True)
    report = Report(RuntimeDelayed, trouble.reason, trouble.message)
    return Change(replace(after, delayed_by=trouble.reason), retry_at, done=True, report=report)


def backoff_s(attempts: int, *, longest_s: float = _LONGEST_RETRY_S) -> float:
    """Seconds until the next try after `attempts` failed ones: 0.5, 1, 2 … `longest_s`."""
    return min(_FIRST_RETRY_S * 2.0 ** min(max(attempts - 1, 0), 20), longest_s)


def attempt_s(environment: Environment, now: datetime, limits: Limits) -> float:
    """How many seconds one attempt may take."""
    left = (_current(environment, now, limits).deadline_at - now).total_seconds()
    return max(left, min(_SHORTEST_ATTEMPT_S, limits.work_s(environment.desired)))


def _say(
    environment: Environment,
    said: Said,
    kind: type[RuntimeReport],
    now: datetime,
    *,
    look_again_at: datetime,
    done: bool,
    reason: str | None = None,
    message: str | None = None,
) -> Change:
    reported = Reported(said, environment.generation, reason, message, now)
    after = replace(environment, reported=reported, delayed_by=None)
    return Change(after, look_again_at, done, Report(kind, reason, message))


def _fail(environment: Environment, trouble: Trouble, now: datetime) -> Change:
    # Not done: what may be left of the attempt is halted next.
    return _say(
        replace(environment, progress=None),
        Said.FAILED,
        RuntimeFailed,
        now,
        look_again_at=now,
        done=False,
        reason=trouble.reason,
        message=trouble.message,
    )


def _too_late(desired: DesiredState, trouble: Trouble, limits: Limits) -> Trouble:
    verb = "started" if desired is DesiredState.RUNNING else "stopped"
    message = f"The workspace could not be {verb} within {limits.work_s(desired):.0f} s: {trouble.message}"
    return Trouble(trouble.reason, message, final=True)


def _why_lost(actual: ObservedWorkspace | None) -> tuple[str, str]:
    if actual is None:
        return "WorkspaceGone", "The workspace is gone; it is being brought back."
    reason = actual.reason or "WorkspaceEnded"
    return reason, actual.message or "The workspace ended by itself; it is being brought back."


def _current(environment: Environment, now: datetime, limits: Limits) -> Progress:
    progress = environment.progress
    if progress is not None and progress.generation == environment.generation:
        return progress
    return _fresh(environment, now, limits)


def _fresh(environment: Environment, now: datetime, limits: Limits) -> Progress:
    return Progress(environment.generation, 0, _after(now, limits.work_s(environment.desired)))


def _after(now: datetime, seconds: float) -> datetime:
    return now + timedelta(seconds=seconds)
