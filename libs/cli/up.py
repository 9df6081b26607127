"""`devpocket up`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from libs.cli.options import DATA_DIR, DataDir, fail

if TYPE_CHECKING:
    from libs.cli.stack.plan import StackOptions

Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="The gateway's port on 127.0.0.1.")]
Scale = Annotated[
    list[str] | None,
    typer.Option("--scale", metavar="SERVICE=N", help="Run N replicas of a service; may be given several times."),
]
Detach = Annotated[bool, typer.Option("--detach", help="Return once it is ready; it goes on in the background.")]
Tls = Annotated[
    bool, typer.Option("--tls", help="HTTPS, with a certificate made for this machine or GATEWAY_TLS_CERT and _KEY.")
]
# How a detached start runs itself again.
InBackground = Annotated[bool, typer.Option("--in-background", hidden=True)]


def up(
    port: Port = 8000,
    data_dir: DataDir = DATA_DIR,
    *,
    detach: Detach = False,
    scale: Scale = None,
    tls: Tls = False,
    in_background: InBackground = False,
) -> None:
    """Start the whole stack on this machine: NATS, Redis, a database, the services, the gateway."""
    from libs.cli.stack.paths import StackPaths
    from libs.cli.stack.plan import OptionError, StackOptions, parse_scale

    try:
        options = StackOptions(StackPaths.of(data_dir), port, parse_scale(scale or ()), tls=tls)
    except OptionError as error:
        fail(str(error), code=2)
    if detach:
        start_in_background(data_dir, port, typer.echo, scale=scale or (), tls=tls)
    else:
        raise typer.Exit(_attach(options, in_background=in_background))


def _attach(options: StackOptions, *, in_background: bool) -> int:
    from libs.cli.stack.console import ConsoleReporter
    from libs.cli.stack.run import StartRefusedError, run_stack

    reporter = ConsoleReporter(sys.stdout, show_logs=not in_background)
    try:
        return run_stack(options, reporter, detached=in_background)
    except StartRefusedError as error:
        fail(str(error))
    finally:
        reporter.close()


def start_in_background(
    data_dir: Path, port: int, show: Callable[[str], None], *, scale: Sequence[str] = (), tls: bool = False
) -> None:
    """Start a stack that goes on without this process; returns once it is ready, ends the command when it fails.

    `show` gets its progress, line by line.
    """
    from libs.cli.stack.client import DetachedStartError, start_detached
    from libs.cli.stack.paths import StackPaths
    from libs.cli.stack.run import StartRefusedError, refuse_if_running

    paths = StackPaths.of(data_dir)
    options = ["--port", str(port), "--data-dir", str(paths.root)]
    options += [part for item in scale for part in ("--scale", item)] + (["--tls"] if tls else [])
    try:
        refuse_if_running(paths)
        start_detached([sys.executable, "-m", "libs.cli.main", "up", "--in-background", *options], paths, show)
    except (StartRefusedError, DetachedStartError) as error:
        fail(str(error))
