"""`devpocket templates …`: the catalogue from the command line, straight on the database.

Settings come from the environment, where `devpocket` has put those of its stack.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from libs.common import mongo
from libs.common.errors import DevPocketError
from services.envs.deps import build
from services.envs.schemas import TemplateResponse
from services.envs.service.templates import TemplateService
from services.envs.settings import EnvsSettings

app = typer.Typer(help="Templates that environments are made from.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
T = TypeVar("T")


def _run(job: Callable[[TemplateService], Awaitable[T]]) -> T:
    """The result of `job`; an expected failure ends the command with its sentence and code 1."""

    async def run() -> T:
        settings = EnvsSettings()
        client = mongo.connect(settings)
        try:
            return await job(build(settings, mongo.database(client, settings, "envs"), None).templates)
        finally:
            await mongo.close(client)

    try:
        return asyncio.run(run())
    except (DevPocketError, ValueError) as error:
        typer.secho(str(error), err=True, fg=typer.colors.RED)
    except mongo.UNAVAILABLE_ERRORS:
        typer.secho("MongoDB cannot be reached: is the stack running? Check MONGODB_URL", err=True, fg=typer.colors.RED)
    raise typer.Exit(1)


@app.command("list")
def list_templates(as_json: Json = False) -> None:
    """List all templates, deprecated ones too."""
    found = _run(lambda templates: templates.listed(category=None, status=None, sees_deprecated=True))
    if as_json:
        shown = [TemplateResponse.of(template, count).model_dump(mode="json") for template, count in found]
        typer.echo(json.dumps(shown))
        return
    for template, count in found:
        environments = "environment" if count == 1 else "environments"
        typer.echo(
            f"{template.name:<20}  {template.status:<10}  {template.docker_image:<40}  {count:>5} {environments}"
        )


@app.command()
def seed(
    force: Annotated[bool, typer.Option("--force", help="Also put the five back to their first state.")] = False,
    as_json: Json = False,
) -> None:
    """Add those of the five templates that are missing."""
    written = _run(lambda templates: templates.seed(force=force))
    if as_json:
        typer.echo(json.dumps({"written": written}))
    else:
        typer.echo(f"Wrote {', '.join(written)}" if written else "Nothing to do: all five are there")
