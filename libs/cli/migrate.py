"""`devpocket migrate`: what the services' migrations have done, and doing it now."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.options import DATA_DIR, DataDir, Json, fail
from libs.cli.plugins import join_stack

if TYPE_CHECKING:
    from libs.common.migrations.runner import Migrations, Status

GROUP = "devpocket.migrations"
_DONE = ("done", "unknown")

Service = Annotated[str | None, typer.Option("--service", metavar="NAME", help="Only this service's.")]

app = typer.Typer(help="How documents become those of this version.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def status(service: Service = None, data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Show every migration of every service. Exit code 1 while some are not done, or this version must not run."""

    async def look(migrations: Migrations) -> list[Status]:
        return await migrations.status()

    found, problems = _each(service, data_dir, look)
    _show(found, problems, as_json=as_json)


@app.command()
def run(service: Service = None, data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Run what is not done: to the end what services wait for, one pass of what goes on beside them."""

    async def work(migrations: Migrations) -> list[Status]:
        await migrations.finish_blocking()
        await migrations.attempt_all()
        return await migrations.status()

    found, problems = _each(service, data_dir, work)
    _show(found, problems, as_json=as_json)


def _each(
    service: str | None, data_dir: Any, work: Callable[[Migrations], Coroutine[Any, Any, list[Status]]]
) -> tuple[dict[str, list[Status]], list[str]]:
    """Of each service, and why this version must not work on some of them, which are left alone."""
    from libs.common.telemetry.logs import configure_logging

    entries = {entry.name: entry for entry in entry_points(group=GROUP)}
    if service is not None and service not in entries:
        fail(f"--service {service}: write one of {', '.join(sorted(entries))}", code=2)
    names = [service] if service is not None else sorted(entries)
    join_stack(data_dir)
    # Not among what the command prints, which may be for another program to read.
    configure_logging("devpocket", sys.stderr)
    return asyncio.run(_on_databases({name: entries[name].load() for name in names}, work))


async def _on_databases(
    plans: Mapping[str, Any], work: Callable[[Migrations], Coroutine[Any, Any, list[Status]]]
) -> tuple[dict[str, list[Status]], list[str]]:
    from libs.common import mongo
    from libs.common.migrations.errors import SchemaNotReadyError
    from libs.common.migrations.runner import Migrations
    from libs.common.settings import CommonSettings

    settings = CommonSettings()
    client = mongo.connect(settings)
    found: dict[str, list[Status]] = {}
    problems: list[str] = []
    try:
        for name, plan in plans.items():
            migrations = Migrations(mongo.database(client, settings, name), plan)
            try:
                await migrations.check()
                found[name] = await work(migrations)
            except SchemaNotReadyError as error:
                problems.append(error.message)
                found[name] = await migrations.status()
    except mongo.UNAVAILABLE_ERRORS:
        fail("MongoDB cannot be reached: is the stack running? Check MONGODB_URL")
    finally:
        await mongo.close(client)
    return found, problems


def _show(found: Mapping[str, list[Status]], problems: list[str], *, as_json: bool) -> None:
    from libs.cli.events.output import Column, Row, note, print_table

    rows = [(service, item) for service, items in found.items() for item in items]
    if as_json:
        told = [{"service": service, **asdict(item)} for service, item in rows]
        typer.echo(json.dumps({"migrations": told, "problems": problems}, default=str))
    else:
        columns = [Column("SERVICE"), Column("MIGRATION"), Column("STATE"), Column("DOCUMENTS", right=True)]
        columns += [Column("KIND"), Column("DONE")]
        print_table(columns, [Row(_cells(service, item), failure=item.is_edited) for service, item in rows])
        for problem in problems:
            note(problem)
    if problems or any(item.state not in _DONE for _, item in rows):
        raise typer.Exit(1)


def _cells(service: str, item: Status) -> list[str]:
    kind = "services wait" if item.blocking else "beside services"
    done = f"{item.done_at:%Y-%m-%d %H:%M:%S}" if item.done_at is not None else "-"
    state = f"{item.state}, edited since" if item.is_edited else item.state
    return [service, item.id, state, str(item.changed), kind, done]
