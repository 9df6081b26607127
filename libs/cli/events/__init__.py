"""`devpocket events`: what happened, straight from the stream. A new command is one line here, and a module beside."""

from __future__ import annotations

import typer

from libs.cli.events import dead_letters, listing, replay, stories, transfer

app = typer.Typer(help="Lifecycle events of the stack.", no_args_is_help=True, rich_markup_mode=None)
app.command("ls")(listing.list_events)
app.command("tail")(listing.tail_events)
app.command("show")(listing.show_event)
app.command("timeline")(stories.show_timeline)
app.command("state")(stories.show_state)
app.command("export")(transfer.export_events)
app.command("import")(transfer.import_events)
app.command("replay")(replay.replay_events)
app.add_typer(dead_letters.app, name="dlq")
