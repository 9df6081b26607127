"""`devpocket events ls`, `tail` and `show`."""

from __future__ import annotations

import json
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.events.connection import read_events, run
from libs.cli.events.options import Environment, Newest, Since, Slice, Type, query_of
from libs.cli.events.output import FAILURE, clean, clock, note, on_terminal, progress_bar, say, short_id
from libs.cli.options import DATA_DIR, DataDir, Json

if TYPE_CHECKING:
    from nats.js import JetStreamContext

    from libs.common.history.query import EventQuery
    from libs.common.history.recorded import Recorded

First = Annotated[int | None, typer.Option("--limit", min=1, help="End after this many.")]
Name = Annotated[str, typer.Argument(metavar="SEQUENCE|ID", help="Its place in the stream, or the event's id.")]


def list_events(
    *,
    environment: Environment = None,
    event_type: Type = None,
    since: Since = None,
    limit: Newest = None,
    file: Slice = None,
    as_json: Json = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """List past events, oldest first."""
    query = query_of(environment, event_type, since)
    printer = _ArrayPrinter() if as_json else _LinePrinter()
    if limit is None:
        read_events(data_dir, file, query, printer.show)
    elif file is not None:
        last: deque[Recorded] = deque(maxlen=limit)
        read_events(data_dir, file, query, last.append)
        for item in last:
            printer.show(item)
    else:
        for item in run(data_dir, lambda js: _newest(js, query, limit)):
            printer.show(item)
    printer.end()


async def _newest(js: JetStreamContext, query: EventQuery, limit: int) -> list[Recorded]:
    from libs.common.history.story import EventStream

    with progress_bar("reading events") as progress:
        return await EventStream(js).newest(query, limit, progress)


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
    query = query_of(environment, event_type, since)
    printer = _ObjectPrinter() if as_json else _LinePrinter()

    async def follow(js: JetStreamContext) -> None:
        from libs.common.history.reader import StreamReader

        shown = 0
        async for item in StreamReader(js).follow(query.subject, since=query.since, notice=note):
            if query.matches(item):
                printer.show(item)
                shown += 1
                if shown == limit:
                    return

    try:
        run(data_dir, follow, reconnect=True)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def show_event(name: Name, as_json: Json = False, data_dir: DataDir = DATA_DIR) -> None:
    """Show one event with everything that is known of it."""

    async def find(js: JetStreamContext) -> Recorded:
        from libs.common.history.story import EventStream

        with progress_bar("looking for it") as progress:
            return await EventStream(js).find(name, progress)

    item = run(data_dir, find)
    if as_json:
        typer.echo(json.dumps(item.as_json()))
        return
    say(f"sequence   {item.sequence}")
    if item.is_imported:
        say(f"imported   here it is {item.stored_sequence}")
    say(f"stored     {clock(item.stored_at)} UTC")
    say(f"subject    {item.subject}")
    for header, value in item.headers.items():
        say(f"header     {header}: {value}")
    if item.problem is not None:
        say(f"problem    {item.problem}", failure=True)
    _print_payload(item)


def _print_payload(item: Recorded) -> None:
    from libs.common.history.redaction import readable_text

    if item.envelope is None:
        say(readable_text(item.payload))
        return
    body = item.as_json()
    body.pop("sequence")
    typer.echo(json.dumps(body, indent=2))


class _LinePrinter:
    """Aligned lines, each as soon as it is known."""

    def show(self, item: Recorded) -> None:
        """One event."""
        event = item.as_json()
        if not on_terminal():
            typer.echo(as_line(event))
            return
        line = _terminal_line(item)
        typer.echo(typer.style(line, fg=FAILURE) if _is_failure(item) else line)

    def end(self) -> None:
        """Nothing is left to print."""


class _ArrayPrinter:
    """One JSON array, written as it is read, so that a long one needs no memory."""

    def __init__(self) -> None:
        self._before = "["

    def show(self, item: Recorded) -> None:
        """One event."""
        typer.echo(self._before + json.dumps(item.as_json()), nl=False)
        self._before = ", "

    def end(self) -> None:
        """Close the array."""
        typer.echo("]" if self._before != "[" else "[]")


class _ObjectPrinter:
    """One JSON object per line."""

    def show(self, item: Recorded) -> None:
        """One event."""
        typer.echo(json.dumps(item.as_json()))

    def end(self) -> None:
        """Nothing is left to print."""


def as_line(event: dict[str, Any]) -> str:
    """One event for people, nothing shortened."""
    about = event.get("subject", "-")
    cause = f" by {event['actor']}" if event.get("actor") else ""
    line = f"{event['sequence']:>6}  {event.get('time', '-')!s:<27}  {event.get('type', '-')!s:<40} {about}{cause}"
    return clean(line)


def _terminal_line(item: Recorded) -> str:
    from libs.common.history.timeline import short_type

    envelope = item.envelope or {}
    time: datetime = item.time
    actor = envelope.get("actor")
    by = f"  by {short_id(str(actor))}" if actor and actor != envelope.get("source") else ""
    source = str(envelope.get("source", "?"))
    what = item.problem if item.envelope is None else short_type(item.type)
    return clean(f"{item.sequence:>6}  {clock(time)}  {source:<12}  {what:<28}  {short_id(item.about)}{by}")


def _is_failure(item: Recorded) -> bool:
    from libs.common.history.timeline import timeline

    return timeline([item])[0].is_failure
