"""`devpocket status`."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from libs.cli.options import DATA_DIR, DataDir, Json, fail

EXIT_DEGRADED = 1
EXIT_STOPPED = 3


def status(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Show the processes of the stack. Exit code 0: all run, 1: some do, 3: stopped."""
    from libs.cli.stack.client import ProcessStatus, status_of
    from libs.cli.stack.state import State, StateFileError, load_stack

    try:
        stack = load_stack(data_dir)
    except StateFileError as error:
        fail(str(error))
    rows: list[ProcessStatus] = status_of(stack) if stack is not None else []
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows]))
    else:
        alive = stack is not None and stack.alive
        typer.echo(f"{stack.url} · data in {stack.paths.root}" if stack and alive else f"no stack runs in {data_dir}")
        for row in rows:
            typer.echo(f"{row.name:<16} {row.state.value:<11} {row.pid or '-':>8} {row.port or '-':>6}")
    running = [row.state is State.RUNNING for row in rows]
    if not running or not any(running):
        raise typer.Exit(EXIT_STOPPED)
    if not all(running):
        raise typer.Exit(EXIT_DEGRADED)
