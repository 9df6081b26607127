"""`devpocket templates …`: the catalogue from the command line, straight on the database.

Settings come from the environment, where `devpocket` has put those of its stack.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from libs.common import mongo
from libs.common.clock import utc_now
from libs.common.errors import DevPocketError
from services.envs.catalog import Template, TemplateCategory
from services.envs.deps import build
from services.envs.errors import TemplateNotFoundError
from services.envs.schemas import TemplateCreate, TemplateFields, TemplateResponse
from services.envs.service.templates import TemplateService
from services.envs.settings import EnvsSettings

app = typer.Typer(help="Templates that environments are made from.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="The template's name.", metavar="NAME")]
PullPolicyOption = Annotated[
    str | None, typer.Option("--pull-policy", help="Always, IfNotPresent, Never, or default: as the cluster does.")
]
Commands = Annotated[
    list[str] | None, typer.Option("--command", help="Runs at every start; may be given several times.")
]
Port = Annotated[int | None, typer.Option("--port", help="Where its program usually listens.")]
T = TypeVar("T")

_GIVEN_AS = {
    "name": "NAME",
    "display_name": "--display-name",
    "description": "--description",
    "docker_image": "--image",
    "image_pull_policy": "--pull-policy",
    "startup_commands": "--command",
    "default_port": "--port",
}


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
    except ValidationError as error:
        text = "; ".join(_complaint(item["loc"], item["msg"]) for item in error.errors(include_input=False))
    except TemplateNotFoundError:
        text = "There is no template of this name; those there are: devpocket templates list"
    except (DevPocketError, ValueError) as error:
        text = str(error)
    except mongo.UNAVAILABLE_ERRORS:
        text = "MongoDB cannot be reached: is the stack running? Check MONGODB_URL"
    typer.secho(text, err=True, fg=typer.colors.RED)
    raise typer.Exit(1)


def _complaint(where: tuple[int | str, ...], message: str) -> str:
    """What is wrong with an option or a setting, under the name by which it was given."""
    field = str(where[0]) if where else "it"
    return f"{_GIVEN_AS.get(field, field.upper())}: {message.removeprefix('Value error, ')}"


def _print(template: Template, count: int, *, as_json: bool) -> None:
    shown = TemplateResponse.of(template, count).model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(shown))
        return
    for name, value in shown.items():
        typer.echo(f"{name:<22}  {value if isinstance(value, str | int) else json.dumps(value)}")


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
        policy = template.image_pull_policy or "default"
        typer.echo(
            f"{template.name:<20}  {template.status:<10}  {template.docker_image:<40}  {policy:<12}  "
            f"{count:>5} {environments}"
        )


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show one template."""
    _print(*_run(lambda templates: templates.get(name, sees_deprecated=True)), as_json=as_json)


@app.command()
def add(
    *,
    name: Name,
    image: Annotated[str, typer.Option(help="The image its environments run; any with a shell will do.")],
    display_name: Annotated[str | None, typer.Option(help="What users see. Default: the name.")] = None,
    description: Annotated[str | None, typer.Option(help="What users read. Default: the image.")] = None,
    category: Annotated[TemplateCategory, typer.Option(help="What kind it is.")] = TemplateCategory.FRAMEWORK,
    pull_policy: PullPolicyOption = None,
    command: Commands = None,
    port: Port = None,
    as_json: Json = False,
) -> None:
    """Add a template."""

    async def job(templates: TemplateService) -> Template:
        fields = {"name": name, "display_name": display_name or name, "description": description or f"From {image}"}
        more = _given(image, pull_policy, command, port)
        body = TemplateCreate.model_validate({**fields, "category": category, **more})
        return await templates.create(body.to_domain(utc_now()))

    _print(_run(job), 0, as_json=as_json)


@app.command("set")
def set_fields(
    *,
    name: Name,
    image: Annotated[str | None, typer.Option(help="Another image.")] = None,
    pull_policy: PullPolicyOption = None,
    command: Commands = None,
    port: Port = None,
    as_json: Json = False,
) -> None:
    """Change a template. Environments made from it keep what they have; new ones get this."""

    async def job(templates: TemplateService) -> tuple[Template, int]:
        given = _given(image, pull_policy, command, port)
        if not given:
            raise ValueError("Nothing to change: give --image, --pull-policy, --command or --port")
        return await templates.change(name, TemplateFields.model_validate(given).values())

    _print(*_run(job), as_json=as_json)


def _given(image: str | None, pull_policy: str | None, command: list[str] | None, port: int | None) -> dict[str, Any]:
    values = {"docker_image": image, "image_pull_policy": pull_policy, "default_port": port}
    # One empty command takes all away.
    commands = None if command is None else [text for text in command if text]
    return {key: value for key, value in {**values, "startup_commands": commands}.items() if value is not None}


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
