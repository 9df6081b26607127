"""`devpocket down`."""

from __future__ import annotations

import json
import time

import typer

from libs.cli.options import DATA_DIR, DataDir, Json, fail


def down(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Stop the stack, attached to a terminal or not. Fine when none runs."""
    from libs.cli.stack.client import StopError, stop_stack
    from libs.cli.stack.state import StateFileError, load_stack

    started = time.monotonic()
    try:
        stack = load_stack(data_dir)
        ended = stop_stack(stack) if stack is not None else None
    except (StateFileError, StopError) as error:
        fail(str(error))
    seconds = round(time.monotonic() - started, 1)
    if as_json:
        was_running = ended is not None and ended.was_running
        leftovers = ended.leftovers if ended else []
        typer.echo(json.dumps({"was_running": was_running, "leftovers": leftovers, "seconds": seconds}))
    elif ended is None or not (ended.was_running or ended.leftovers):
        typer.echo(f"nothing runs with its data in {data_dir}")
    elif ended.was_running:
        typer.echo(f"stopped in {seconds} s")
    else:
        typer.echo(f"the stack had crashed; ended what it left behind: {', '.join(ended.leftovers)}")
