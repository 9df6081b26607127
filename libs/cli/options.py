"""Options and manners that all commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from libs.cli.stack.paths import DEFAULT_DATA_DIR

DataDir = Annotated[Path, typer.Option("--data-dir", metavar="DIR", help="The folder of the stack's data.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

DATA_DIR = DEFAULT_DATA_DIR


def fail(message: str, code: int = 1) -> NoReturn:
    """Say on standard error what is wrong, and end."""
    typer.echo(f"devpocket: {message}", err=True)
    raise typer.Exit(code)
