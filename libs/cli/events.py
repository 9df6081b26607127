"""`devpocket events`: what happened, straight from the stream."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from libs.cli.options import DATA_DIR, DataDir, Json, fail
from libs.cli.plugins import join_stack

app = typer.Typer(help="Lifecycle events of the stack.", no_args_is_help=True, rich_markup_mode=None)

Environment = Annotated[str | None, typer.Option("--env", metavar="ID", help="Only events about this environment.")]
Type = Annotated[
    str | None,
    typer.Option("--type", help="Only this type: devpocket.env.created.v1, or a part of it such as created."),
]
Since = Annotated[
    str | None, typer.Option("--since", help="Only events since then: 30s, 10m, 2h, 7d, or an ISO 8601 time.")
]
Newest = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many, the newest.")]
First = Annotated[int | None, typer.Option("--limit", min=1, help="End after this many.")]

_AGO = re.compile(r"(\d{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SUBJECT_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")

_Result = TypeVar("_Result")


@app.command("ls")
def list_events(
    *,
    environment: Environment = None,
    event_type: Type = None,
    since: Since = None,
    limit: Newest = None,
    as_json: Json = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """List past events, oldest first."""
    from libs.cli.event_stream import EventQuery, past_events

    query = EventQuery(_environment_id(environment), event_type, parse_since(since))
    events = _run(data_dir, lambda url: past_events(url, query, limit))
    if as_json:
        typer.echo(json.dumps(events))
        return
    for event in events:
        typer.echo(as_line(event))


@app.command("tail")
def tail_events(
    *,
    environment: Environment = None,
    event_type: Type = None,
    since: Since = None,
    limit: First = None,
    as_json: Json = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Follow events as they come, until Ctrl-C; with --since, past ones first. With --json, one object per line."""
    from libs.cli.event_stream import EventQuery, follow_events

    query = EventQuery(_environment_id(environment), event_type, parse_since(since))

    def show(event: dict[str, Any]) -> None:
        typer.echo(json.dumps(event) if as_json else as_line(event))

    try:
        _run(data_dir, lambda url: follow_events(url, query, limit, show))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def parse_since(text: str | None, now: datetime | None = None) -> datetime | None:
    """`10m` as a time, or an ISO 8601 time (UTC unless it says otherwise)."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return (now or datetime.now(UTC)) - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--since {text}: write 30s, 10m, 2h, 7d, or a time such as 2026-11-23T15:00:00Z", code=2)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def as_line(event: dict[str, Any]) -> str:
    """One event for people."""
    about = event.get("subject", "-")
    cause = f" by {event['actor']}" if event.get("actor") else ""
    return f"{event['sequence']:>6}  {event.get('time', '-'):<27}  {event.get('type', '-'):<40} {about}{cause}"


def _environment_id(text: str | None) -> str | None:
    """It becomes part of a subject, where dots and wildcards mean something else."""
    if text is not None and not _SUBJECT_TOKEN.fullmatch(text):
        fail(f"--env {text}: that is no environment id", code=2)
    return text


def _run(data_dir: Path, read: Callable[[str], Coroutine[None, None, _Result]]) -> _Result:
    from libs.cli.event_stream import EventsUnavailableError

    join_stack(data_dir)
    url = os.environ.get("NATS_URL")
    if not url:
        fail(f"no stack runs in {data_dir}; start one with `devpocket up`, or set NATS_URL")
    try:
        return asyncio.run(read(url))
    except EventsUnavailableError as error:
        fail(str(error))
