"""The environment: what it is, which wishes are legal when, and what a report of the runtime does to it. Pure.

Only the tables below decide about status. A wish is what a user asked for; a report is what the orchestrator has seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from libs.common.contracts.environments import DesiredState, EnvironmentStatus, Resources
from libs.common.contracts.events import (
    EnvironmentCreated,
    EnvironmentDeleteRequested,
    EnvironmentRestartRequested,
    EnvironmentStartRequested,
    EnvironmentStatusChanged,
    EnvironmentStopRequested,
    EnvironmentUpdated,
    EnvironmentWish,
    WorkspaceTemplate,
)
from services.envs.entities import Change, Command, Edit, Environment, Observation, Report
from services.envs.errors import TransitionForbiddenError

CREATING, RUNNING, STOPPING, STOPPED, STARTING, RESTARTING, TERMINATING, TERMINATED, ERROR = EnvironmentStatus

_MAX_REASON_CHARS = 500
WishT = TypeVar("WishT", bound=EnvironmentWish)


Trigger = Command | Report

TRANSITIONAL = frozenset({CREATING, STARTING, RESTARTING, STOPPING, TERMINATING})
"""On the way to another status: nothing stays here for ever."""

_LIVE = frozenset(EnvironmentStatus) - {TERMINATED}

_ROWS: tuple[tuple[Trigger, Iterable[EnvironmentStatus], EnvironmentStatus], ...] = (
    (Command.START, (STOPPED, ERROR), STARTING),
    (Command.STOP, (RUNNING, CREATING, STARTING, RESTARTING, ERROR), STOPPING),
    (Command.RESTART, (RUNNING, ERROR), RESTARTING),
    (Command.DELETE, _LIVE - {TERMINATING}, TERMINATING),
    (Report.RUNNING, (CREATING, STARTING, RESTARTING), RUNNING),
    (Report.STOPPED, (STOPPING,), STOPPED),
    (Report.FAILED, (CREATING, STARTING, RESTARTING, STOPPING, RUNNING), ERROR),
    (Report.DELETED, (TERMINATING,), TERMINATED),
    # The orchestrator goes on trying after it has reported a failure, so a late success still counts,
    # and a later failure may have a better reason. A deletion that fails stays a deletion.
    (Report.RUNNING, (ERROR,), RUNNING),
    (Report.STOPPED, (ERROR,), STOPPED),
    (Report.FAILED, (ERROR,), ERROR),
    (Report.FAILED, (TERMINATING,), TERMINATING),
    # Said again when it can be seen again.
    (Report.RUNNING, (RUNNING,), RUNNING),
    *(
        (Report.DELAYED, (status,), status)
        for status in (CREATING, STARTING, RESTARTING, STOPPING, TERMINATING, RUNNING)
    ),
)

TRANSITIONS: dict[tuple[EnvironmentStatus, Trigger], EnvironmentStatus] = {
    (source, trigger): target for trigger, sources, target in _ROWS for source in sources
}
"""The transition table. What is not in it does not happen."""

ALREADY: dict[Command, frozenset[EnvironmentStatus]] = {
    Command.START: frozenset({RUNNING, STARTING}),
    Command.STOP: frozenset({STOPPED, STOPPING}),
    Command.RESTART: frozenset({RESTARTING}),
    Command.DELETE: frozenset({TERMINATING, TERMINATED}),
}
"""Where a command has nothing left to do: it succeeds and changes nothing."""

DESIRED: dict[Command, DesiredState] = {
    Command.START: DesiredState.RUNNING,
    Command.STOP: DesiredState.STOPPED,
    Command.RESTART: DesiredState.RUNNING,
    Command.DELETE: DesiredState.DELETED,
}

FULFILS: dict[Report, DesiredState] = {
    Report.RUNNING: DesiredState.RUNNING,
    Report.STOPPED: DesiredState.STOPPED,
    Report.DELETED: DesiredState.DELETED,
}
"""A success counts only for the wish it fulfils; a failure or a delay counts for any."""

_WISHES: dict[Command, type[EnvironmentWish]] = {
    Command.START: EnvironmentStartRequested,
    Command.STOP: EnvironmentStopRequested,
    Command.RESTART: EnvironmentRestartRequested,
    Command.DELETE: EnvironmentDeleteRequested,
}

_PARTICIPLES = {
    Command.START: "started",
    Command.STOP: "stopped",
    Command.RESTART: "restarted",
    Command.DELETE: "deleted",
}
_HINTS = {
    CREATING: "please wait until it is running",
    STARTING: "please wait until it is running",
    RESTARTING: "please wait until it is running",
    STOPPING: "please wait until it is stopped",
    STOPPED: "start it instead",
    TERMINATING: "it is being deleted",
    TERMINATED: "it is gone",
}


def created(environment: Environment) -> EnvironmentCreated:
    """The event of a new environment."""
    return _wish(EnvironmentCreated, environment)


def decide(
    environment: Environment,
    command: Command,
    now: datetime,
    *,
    resources: Resources | None = None,
    reason: str | None = None,
) -> Change:
    """What a command does. Raises TransitionForbiddenError.

    `resources`: those it goes on with, None for those it has. `reason`: why it is stopped though its user did not ask.
    """
    if environment.status in ALREADY[command]:
        return Change(environment, environment)
    target = TRANSITIONS.get((environment.status, command))
    if target is None:
        raise TransitionForbiddenError(_refusal(environment.status, _PARTICIPLES[command]))
    after = replace(
        environment,
        status=target,
        status_reason=reason,
        stop_reason=reason,
        resources=resources or environment.resources,
        desired=DESIRED[command],
        generation=environment.generation + 1,
        version=environment.version + 1,
        # Sequences are compared within one generation only, so that a stream that began anew heals with the next wish.
        report_sequence=0,
        delay_sequence=0,
        delay_reason=None,
        updated_at=now,
    )
    return Change(environment, after, (_wish(_WISHES[command], after), _status_changed(environment, after)))


def edit(environment: Environment, wanted: Edit, now: datetime) -> Change:
    """Change what does not concern the running workspace; it takes effect at the next start.

    Raises TransitionForbiddenError for an environment that is being deleted.
    """
    if environment.desired is DesiredState.DELETED:
        raise TransitionForbiddenError(_refusal(environment.status, "changed"))
    after = replace(
        environment,
        name=wanted.name or environment.name,
        description=environment.description if wanted.description is None else wanted.description or None,
        resources=wanted.resources or environment.resources,
        startup_command=(
            environment.startup_command if wanted.startup_command is None else wanted.startup_command or None
        ),
        variables_sealed=wanted.variables_sealed or environment.variables_sealed,
    )
    if after == environment:
        return Change(environment, environment)
    after = replace(after, version=environment.version + 1, updated_at=now)
    return Change(environment, after, (_wish(EnvironmentUpdated, after),))


def observe(environment: Environment, seen: Observation, now: datetime) -> Change:
    """What a report does: nothing to the status when it is about another wish, or older than one already applied.

    The first running workspace completes the installation, whichever wish it was for and however late we hear of it.
    """
    installed = environment.installation_completed or seen.report is Report.RUNNING
    if seen.generation != environment.generation or _heard_before(environment, seen) or not environment.is_live:
        if installed == environment.installation_completed:
            return Change(environment, environment)
        return Change(
            environment, replace(environment, installation_completed=installed, version=environment.version + 1)
        )
    heard = replace(_heard(environment, seen), version=environment.version + 1, installation_completed=installed)
    target = TRANSITIONS.get((environment.status, seen.report))
    if target is None or FULFILS.get(seen.report, environment.desired) is not environment.desired:
        return Change(environment, heard)
    reason = _reason(heard, target, seen)
    if (target, reason) == (environment.status, environment.status_reason):
        return Change(environment, heard)
    after = replace(heard, status=target, status_reason=reason, updated_at=now)
    if target is TERMINATED:
        after = replace(after, slot=None, deleted_at=now, delay_sequence=0, delay_reason=None)
    return Change(environment, after, (_status_changed(environment, after),))


def _heard_before(environment: Environment, seen: Observation) -> bool:
    """Delays are told apart from the others, because a delay does not outdate the report of a status before it."""
    if seen.report is Report.DELAYED:
        return seen.sequence <= environment.delay_sequence
    return seen.sequence <= environment.report_sequence


def _heard(environment: Environment, seen: Observation) -> Environment:
    if seen.sequence > max(environment.report_sequence, environment.delay_sequence):
        environment = replace(environment, cluster=seen.cluster)
    if seen.report is not Report.DELAYED:
        return replace(environment, report_sequence=seen.sequence)
    reason = failure_sentence(seen.reason, seen.message)
    return replace(environment, delay_sequence=seen.sequence, delay_reason=reason)


def _reason(heard: Environment, target: EnvironmentStatus, seen: Observation) -> str | None:
    """What is said of the status: the last delay if nothing newer is known, in a status that can be held up."""
    if heard.delay_sequence > heard.report_sequence and (target, Report.DELAYED) in TRANSITIONS:
        return heard.delay_reason
    if seen.report is Report.DELAYED:
        return heard.status_reason
    return failure_sentence(seen.reason, seen.message) if seen.report is Report.FAILED else heard.stop_reason


def failure_sentence(reason: str | None, message: str | None) -> str:
    """One sentence a person can act on, from a CamelCase reason and a message, either of which may be missing."""
    text = " ".join((message or "").split()).rstrip(".")
    words = "".join(f" {char.lower()}" if char.isupper() else char for char in reason or "").strip()
    if text:
        sentence = f"{text} ({reason})" if reason else text
    else:
        sentence = words.capitalize() or "The runtime gave no reason"
    return sentence if len(sentence) <= _MAX_REASON_CHARS else f"{sentence[: _MAX_REASON_CHARS - 1]}…"


def _refusal(status: EnvironmentStatus, participle: str) -> str:
    return f"The environment is {status} and cannot be {participle} now: {_HINTS[status]}"


def _wish(kind: type[WishT], environment: Environment) -> WishT:
    return kind(
        environment_id=environment.id,
        user_id=environment.user_id,
        name=environment.name,
        region=environment.region,
        desired=environment.desired,
        generation=environment.generation,
        version=environment.version,
        spec=WorkspaceTemplate(
            template=environment.template,
            image=environment.image,
            image_pull_policy=environment.image_pull_policy,
            resources=environment.resources,
            variables_sealed=environment.variables_sealed,
            startup_command=environment.startup_command,
            web_port=environment.web_port,
        ),
    )


def _status_changed(before: Environment, after: Environment) -> EnvironmentStatusChanged:
    return EnvironmentStatusChanged(
        environment_id=after.id,
        user_id=after.user_id,
        status=after.status,
        previous=before.status,
        status_reason=after.status_reason,
        cluster=after.cluster,
        generation=after.generation,
        version=after.version,
    )
