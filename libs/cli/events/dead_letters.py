"""`devpocket events dlq`: events that could not be handled."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.events.connection import run
from libs.cli.events.options import Environment, Newest, Type, token
from libs.cli.events.output import Column, Row, clock, print_table, progress_bar, say
from libs.cli.options import DATA_DIR, DataDir, Json, fail

if TYPE_CHECKING:
    from nats.js import JetStreamContext

    from libs.common.history.dead_letters import DeadLetter, DeadLetterQuery, Redriven

app = typer.Typer(help="Events that could not be handled.", no_args_is_help=True, rich_markup_mode=None)

Service = Annotated[str | None, typer.Option("--service", metavar="NAME", help="Only those of this service.")]
Number = Annotated[int, typer.Argument(metavar="ID", min=1, help="The number that `dlq ls` shows.")]
Numbers = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", min=1, help="Numbers that `dlq ls` shows.")]
All = Annotated[bool, typer.Option("--all", help="All that the filters leave.")]


@app.command("ls")
def list_letters(
    *,
    service: Service = None,
    environment: Environment = None,
    event_type: Type = None,
    limit: Newest = None,
    as_json: Json = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """List dead letters, oldest first."""
    query = _query(service, environment, event_type)

    async def find(js: JetStreamContext) -> deque[dict[str, Any]]:
        from libs.common.history.dead_letters import DeadLetters

        rows: deque[dict[str, Any]] = deque(maxlen=limit)
        with progress_bar("reading dead letters") as progress:
            async for letter in DeadLetters(js).find(query, progress=progress):
                rows.append(_row(letter))
        return rows

    rows = run(data_dir, find)
    if as_json:
        typer.echo(json.dumps([row["json"] for row in rows]))
    elif rows:
        _print_letters([row["cells"] for row in rows])
    else:
        say("no dead letters")


def _row(letter: DeadLetter) -> dict[str, Any]:
    """What is shown of it, so that payloads need not be kept."""
    shown = letter.as_json()
    cells = [
        str(letter.number),
        clock(letter.recorded.stored_at),
        letter.service,
        letter.consumer or "?",
        letter.subject,
        str(shown["deliveries"] or "?"),
        letter.error,
    ]
    return {"json": shown, "cells": cells}


def _print_letters(rows: list[list[str]]) -> None:
    columns = [
        Column("ID", right=True),
        Column("TIME (UTC)"),
        Column("SERVICE"),
        Column("CONSUMER"),
        Column("SUBJECT", keep=False),
        Column("TRIES", right=True),
        Column("ERROR", keep=False),
    ]
    print_table(columns, [Row(cells) for cells in rows])


@app.command("show")
def show_letter(number: Number, as_json: Json = False, data_dir: DataDir = DATA_DIR) -> None:
    """Show one with its headers and payload."""

    async def get(js: JetStreamContext) -> DeadLetter:
        from libs.common.history.dead_letters import DeadLetters

        return await DeadLetters(js).get(number)

    letter = run(data_dir, get)
    whole = letter.in_full()
    if as_json:
        typer.echo(json.dumps(whole))
        return
    event, text, headers = whole.pop("event"), whole.pop("text"), whole.pop("headers")
    for name, value in whole.items():
        if value is not None:
            say(f"{name:<22} {value}", failure=name.startswith("error"))
    for name, value in headers.items():
        say(f"{'header':<22} {name}: {value}")
    if event is not None:
        typer.echo(json.dumps(event, indent=2))
    else:
        say(text)


@app.command("redrive")
def redrive_letters(
    *,
    numbers: Numbers = None,
    everything: All = False,
    service: Service = None,
    environment: Environment = None,
    event_type: Type = None,
    as_json: Json = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Have the service try again now. What is handled is deleted; exit code 1 when anything is not."""
    if bool(numbers) == everything:
        fail("redrive what? Give the numbers that `dlq ls` shows, or --all", code=2)
    if numbers and (service or environment or event_type):
        fail("filters go with --all, not with numbers", code=2)
    query = _query(service, environment, event_type)
    outcomes = run(data_dir, lambda js: _redrive(js, numbers, query, quiet=as_json))
    if as_json:
        typer.echo(json.dumps([outcome.as_json() for outcome in outcomes]))
    elif not outcomes:
        say("no dead letters")
    if not all(outcome.handled for outcome in outcomes):
        raise typer.Exit(1)


async def _redrive(
    js: JetStreamContext, numbers: list[int] | None, query: DeadLetterQuery, *, quiet: bool
) -> list[Redriven]:
    from libs.common.history.dead_letters import DeadLetters

    letters = DeadLetters(js)
    chosen = numbers or [letter.number async for letter in letters.find(query)]
    outcomes = []
    for number in chosen:
        outcome = await letters.redrive(await letters.get(number))
        outcomes.append(outcome)
        if not quiet:
            _print_outcome(outcome)
    return outcomes


def _print_outcome(outcome: Redriven) -> None:
    letter = outcome.letter
    if outcome.handled:
        say(f"✓ {letter.number:>6}  {letter.consumer}  {letter.subject}  handled")
        return
    reason = f"{outcome.error_type}: {outcome.message}" if outcome.error_type else outcome.message
    say(f"✗ {letter.number:>6}  {letter.consumer}  {letter.subject}  {reason}", failure=True)


def _query(service: str | None, environment: str | None, event_type: str | None) -> DeadLetterQuery:
    from libs.common.history.dead_letters import DeadLetterQuery

    return DeadLetterQuery(
        token("--service", service, "service"), token("--env", environment, "environment id"), event_type
    )
