"""`devpocket restart`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from libs.cli.options import DATA_DIR, DataDir, Json, fail

EXIT_STOPPED = 3

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SERVICE]...", help="auth, envs, orchestrator, terminal, one replica of them, or gateway."),
]


def restart(services: Names = None, data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Restart the services and the gateway one by one, without interruption, e.g. after an update of the code.

    Exit code 0: all are new, 1: one was not, and goes on as it was, 3: no stack runs.
    """
    from libs.cli.stack.control import ControlError
    from libs.cli.stack.control import restart as ask
    from libs.cli.stack.state import StateFileError, load_stack

    done: list[dict[str, Any]] = []
    error: ControlError | None = None
    try:
        stack = load_stack(data_dir)
        if stack is None or not stack.alive:
            fail(f"no stack runs in {data_dir}; start one with `devpocket up`", code=EXIT_STOPPED)
        for item in ask(stack.paths.control, services or []):
            done.append(item)
            if not as_json:
                typer.echo(_line(item))
    except StateFileError as damaged:
        fail(str(damaged))
    except ControlError as refused:
        error = refused
    if as_json:
        typer.echo(json.dumps({"restarted": done, "error": str(error) if error else None}))
    if error is not None:
        for line in error.log_tail:
            typer.echo(f"  | {line}", err=True)
        fail(str(error))


def _line(item: dict[str, Any]) -> str:
    text = f"✓ {item['name']:<16} new after {item['ready_s']:4.1f} s"
    if item["leaving_s"]:
        text += f", the old one gone {item['leaving_s']:4.1f} s later"
    return f"{text}; what it still had was cut off" if item["was_killed"] else text
