"""Commands that services contribute, found by the entry-point group "devpocket.commands".

They are loaded when used, not before: a broken or missing one must not break the rest. They find the settings of the
running stack in the environment, as a service would.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import typer

from libs.cli.options import DATA_DIR, fail

GROUP = "devpocket.commands"
_DATA_DIR_OPTION = "--data-dir"
# Everything after the name belongs to the plug-in, --help included.
_PASS_ALL = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


def add_plugins(app: typer.Typer) -> None:
    """Make every contributed command known by its name."""
    for entry in sorted(entry_points(group=GROUP), key=lambda item: item.name):
        add_plugin(app, entry)


def add_plugin(app: typer.Typer, entry: EntryPoint) -> None:
    """One of them."""
    module = entry.value.partition(":")[0]

    def run(context: typer.Context) -> None:
        data_dir, arguments = take_data_dir(context.args)
        if "--help" not in arguments:
            join_stack(data_dir)
        command = typer.main.get_command(_load(entry))
        command.main(args=arguments, prog_name=f"devpocket {entry.name}")

    run.__doc__ = f"Commands of {module.removesuffix('.commands')}; see devpocket {entry.name} --help."
    app.command(entry.name, context_settings=dict(_PASS_ALL), add_help_option=False)(run)


def _load(entry: EntryPoint) -> typer.Typer:
    try:
        app = entry.load()
    except Exception as error:  # whatever a broken plug-in raises, the sentence is for its user
        fail(f"the command {entry.name!r} of {entry.value.partition(':')[0]} cannot be loaded: {error!r}")
    if not isinstance(app, typer.Typer):
        fail(f"the command {entry.name!r} is no Typer application but {type(app).__name__}")
    return app


def take_data_dir(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """Takes `--data-dir DIR` out, so that plug-ins need not know of it."""
    rest: list[str] = []
    data_dir = DATA_DIR
    remaining = iter(arguments)
    for argument in remaining:
        name, separator, value = argument.partition("=")
        if name != _DATA_DIR_OPTION:
            rest.append(argument)
            continue
        chosen = value if separator else next(remaining, "")
        if not chosen:
            fail(f"{_DATA_DIR_OPTION} needs a folder", code=2)
        data_dir = Path(chosen)
    return data_dir, rest


def join_stack(data_dir: Path) -> None:
    """Put the settings of the stack in `data_dir` into the environment. What is set there already is kept."""
    from libs.cli.stack.state import StateFileError, load_stack

    if {"MONGODB_URL", "NATS_URL"} <= os.environ.keys():
        return
    try:
        stack = load_stack(data_dir)
    except StateFileError as error:
        fail(str(error))
    if stack is None or not stack.alive:
        print(f"devpocket: no stack runs in {data_dir}; using the settings of the environment", file=sys.stderr)
        return
    for name, value in stack.environment.items():
        os.environ.setdefault(name, value)
