"""The `devpocket` command. A new command is one line here, and a module beside this one."""

from __future__ import annotations

import typer

from libs.cli import down, events, migrate, plugins, restart, status, streams, up
from libs.cli.backup import command as backups
from libs.cli.demo import command as demo

app = typer.Typer(
    help="DevPocket Server on this machine: the stack, its environments, its events.",
    no_args_is_help=True,
    add_completion=False,
    # Plain help: the pretty one takes three times as long to start.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(up.up)
app.command()(down.down)
app.command()(status.status)
app.command()(restart.restart)
app.command()(demo.demo)
app.command()(backups.backup)
app.command()(backups.restore)
app.add_typer(events.app, name="events")
app.add_typer(migrate.app, name="migrate")
app.add_typer(streams.app, name="streams")
plugins.add_plugins(app)


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
