"""`devpocket streams`: what differs between the streams and the settings, and applying it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from libs.cli.options import DATA_DIR, DataDir, Json

if TYPE_CHECKING:
    from nats.js import JetStreamContext

    from libs.common.messaging.stream_changes import Change

AllowLoss = Annotated[bool, typer.Option("--allow-loss", help="Also what removes events or makes them less safe.")]

app = typer.Typer(help="The event streams: as they are, as they are set.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def status(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Show what differs. Exit code 1 while something does."""
    from libs.cli.events.connection import run

    async def look(js: JetStreamContext) -> list[Change]:
        from libs.common.messaging.stream_changes import changes
        from libs.common.settings import CommonSettings

        return await changes(js, CommonSettings())

    found = run(data_dir, look)
    _show(found, "the streams are as they are set", as_json=as_json)
    if found:
        raise typer.Exit(1)


@app.command()
def apply(allow_loss: AllowLoss = False, data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Make the streams as STREAM_MAX_AGE_DAYS, STREAM_REPLICAS and this version say."""
    from libs.cli.events.connection import run

    async def change(js: JetStreamContext) -> list[Change]:
        from libs.common.messaging.stream_changes import apply as apply_changes
        from libs.common.settings import CommonSettings

        return await apply_changes(js, CommonSettings(), allow_loss=allow_loss)

    _show(run(data_dir, change), "nothing to change", as_json=as_json)


def _show(found: list[Change], otherwise: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(change) for change in found]))
        return
    for change in found:
        typer.echo(str(change))
    if not found:
        typer.echo(otherwise)
