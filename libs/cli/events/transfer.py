"""`devpocket events export` and `import`: a bug from production replays on a laptop."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from libs.cli.events.connection import opened, run
from libs.cli.events.options import Environment, Since, query_of
from libs.cli.events.output import note, progress_bar
from libs.cli.options import DATA_DIR, DataDir, Json, fail

if TYPE_CHECKING:
    from nats.js import JetStreamContext

    from libs.common.history.transfer import Imported

User = Annotated[
    str | None, typer.Option("--user", metavar="ID", help="Only events about this user and what belongs to the user.")
]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: standard output.")]
Source = Annotated[Path, typer.Argument(metavar="FILE", help="An export; - for standard input.")]


def export_events(
    *,
    environment: Environment = None,
    user: User = None,
    since: Since = None,
    output: Output = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Write events as NDJSON, one object per line, with sealed variables as they are: it is for operators."""
    query = query_of(environment, since=since, user=user)
    count = 0

    async def export(js: JetStreamContext) -> None:
        nonlocal count
        from libs.common.history.ndjson import to_line
        from libs.common.history.story import EventStream

        with _target(output) as file, progress_bar("exporting") as progress:
            async for item in EventStream(js).all(query, progress):
                file.write(to_line(item) + "\n")
                count += 1

    run(data_dir, export)
    note(f"exported {count} events" + (f" to {output}" if output is not None else ""))


@contextlib.contextmanager
def _target(output: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that has its name only once it is whole."""
    if output is None:
        stream = typer.get_text_stream("stdout", encoding="utf-8")
        yield stream
        stream.flush()
        return
    partial = output.with_name(f"{output.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            yield file
        partial.replace(output)
    except OSError as error:
        fail(f"{output}: {error.strerror or error}")
    finally:
        partial.unlink(missing_ok=True)


def import_events(file: Source, as_json: Json = False, data_dir: DataDir = DATA_DIR) -> None:
    """Bring exported events in. They can be read like others; services do not act upon them."""
    with opened(file) as lines:

        async def bring_in(js: JetStreamContext) -> Imported:
            from libs.common.history.errors import BadSliceError
            from libs.common.history.transfer import Importer
            from libs.common.messaging.streams import ensure_streams
            from libs.common.settings import CommonSettings

            await ensure_streams(js, CommonSettings())
            try:
                with progress_bar("importing") as progress:
                    return await Importer(js).bring_in(lines, progress)
            except BadSliceError as error:
                fail(f"{file}: {error}; nothing was imported")

        done = run(data_dir, bring_in)
    if as_json:
        typer.echo(f'{{"added": {done.added}, "already_there": {done.already_there}}}')
    else:
        typer.echo(f"{done.added} events imported, {done.already_there} were there already")
