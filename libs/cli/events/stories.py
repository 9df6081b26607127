"""`devpocket events timeline` and `state`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.events.connection import read_events
from libs.cli.events.options import Environment, Since, Slice, query_of, read_time
from libs.cli.events.output import Column, Row, clock, duration, on_terminal, print_table, say, short_id, short_ids
from libs.cli.options import DATA_DIR, DataDir, Json, fail

if TYPE_CHECKING:
    from libs.common.history.recorded import Recorded
    from libs.common.history.state import EnvironmentState, Fact
    from libs.common.history.timeline import Step

Correlation = Annotated[
    str | None,
    typer.Option("--correlation", metavar="ID", help="Follow one request (its X-Request-ID) wherever it led."),
]
OneEnvironment = Annotated[str, typer.Option("--env", metavar="ID", help="The environment.")]
At = Annotated[
    str | None, typer.Option("--at", help="As it was then: 30s, 10m, 2h, 7d ago, or an ISO 8601 time. Default: now.")
]
Sequence = Annotated[
    int | None, typer.Option("--seq", min=1, metavar="N", help="As it was when this event had happened.")
]

_DEEPEST = 8
_DATE_CHARS = len("2026-11-23")


def show_timeline(
    *,
    environment: Environment = None,
    correlation: Correlation = None,
    since: Since = None,
    file: Slice = None,
    as_json: Json = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Show step by step what happened: who, what, because of what, how long since the step before."""
    if environment is None and correlation is None:
        fail("timeline of what? Give --env ID, or --correlation ID", code=2)
    from libs.common.history.story import nothing_found
    from libs.common.history.timeline import timeline

    query = query_of(environment, since=since, correlation=correlation)
    events: list[Recorded] = []
    read_events(data_dir, file, query, events.append)
    steps = timeline(events)
    if not steps:
        fail(f"{nothing_found(query)}{_hint(file)}")
    if as_json:
        typer.echo(json.dumps([step.as_json() for step in steps]))
        return
    about = f"environment {environment}" if environment else f"request {correlation}"
    _print_steps(steps, about, several=environment is None)


def _hint(file: object) -> str:
    return f" in {file}" if file is not None else "; `devpocket events ls` shows what there is"


def _print_steps(steps: list[Step], about: str, *, several: bool) -> None:
    took = duration((steps[-1].time - steps[0].time).total_seconds())
    failures = sum(step.is_failure for step in steps)
    ending = f" · {failures} of them bad news" if failures else ""
    days = {clock(step.time)[:_DATE_CHARS] for step in steps}
    # Room on a screen is dear; in a pipe every line is whole.
    one_day = days.pop() if len(days) == 1 and on_terminal() else None
    title = f"{about} · {len(steps)} events in {took}{ending} · {f'{one_day}, ' if one_day else ''}times are UTC"
    columns = [
        Column("SEQ", right=True),
        Column("TIME"),
        Column("STEP", right=True),
        Column("SERVICE"),
        Column("WHAT"),
        *([Column("ABOUT")] if several else []),
        Column("BECAUSE OF"),
        Column("DETAIL", keep=False),
    ]
    cut = _DATE_CHARS + 1 if one_day else 0
    print_table(columns, [Row(_cells(step, cut, several=several), step.is_failure) for step in steps], title)


def _cells(step: Step, cut: int, *, several: bool) -> list[str]:
    since = step.seconds_since_previous
    branch = "  " * (min(step.depth, _DEEPEST) - 1) + "└ " if step.depth else ""
    return [
        str(step.sequence),
        clock(step.time)[cut:],
        "" if since is None else f"+{duration(since)}" if since >= 0 else duration(since),
        step.service,
        branch + step.what,
        *([short_id(step.about)] if several else []),
        _because(step),
        short_ids(step.detail),
    ]


def _because(step: Step) -> str:
    """The event that led to it, else who asked for it; `?` is an event that is not shown here."""
    cause = f"← {step.cause}" if step.cause is not None else "← ?" if step.causation_id else ""
    actor = f"by {short_id(step.actor)}" if step.actor and step.actor != step.service else ""
    return " ".join(part for part in (cause, actor) if part)


def show_state(
    *,
    environment: OneEnvironment,
    at: At = None,
    sequence: Sequence = None,
    file: Slice = None,
    as_json: Json = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Show what an environment was at some moment, since when, and what the last step changed."""
    from libs.common.history.errors import NoSuchEventError
    from libs.common.history.story import state_of

    time = read_time("--at", at)
    events: list[Recorded] = []
    read_events(data_dir, file, query_of(environment), events.append)
    try:
        state = state_of(environment, events, at=time, sequence=sequence)
    except NoSuchEventError as error:
        fail(f"{error}{_hint(file)}")
    if as_json:
        typer.echo(json.dumps(state.as_json()))
        return
    _print_state(state)


def _print_state(state: EnvironmentState) -> None:
    from libs.common.history.timeline import short_type

    last = state.last
    rows = [
        Row([name, _value(fact.value), clock(fact.since), str(fact.sequence)], _is_bad(name, fact))
        for name, fact in state.facts.items()
    ]
    rows += [
        Row(["open terminal", short_ids(f"{name} of {fact.value}"), clock(fact.since), str(fact.sequence)])
        for name, fact in state.sessions.items()
    ]
    columns = [Column(""), Column("VALUE", keep=False), Column("SINCE (UTC)"), Column("EVENT", right=True)]
    print_table(columns, rows, f"environment {state.environment_id} after {state.events} events")
    if state.not_understood:
        say(f"{state.not_understood} events about it are not understood and count for nothing", failure=True)
    said = f"{last.sequence}, {short_type(last.type)}, {clock(last.time)}"
    say(f"the last event ({said}) changed {'this:' if state.changed else 'nothing'}")
    for item in state.changed:
        say(f"  {item.field:<16} {_value(item.before)} → {_value(item.after)}")


def _is_bad(name: str, fact: Fact) -> bool:
    if name == "report":
        return fact.value["said"] in {"failed", "lost"}
    return (name == "status" and fact.value == "error") or (name == "status_reason" and fact.value is not None)


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, dict):
        return str(value)
    if "said" in value:
        words = [f"{value['said']} (generation {value['generation']}, {value['runtime']} in {value['cluster']})"]
        return ": ".join([*words, *(str(value[name]) for name in ("reason", "message") if value[name])])
    return ", ".join(f"{name} {item}" for name, item in value.items())
