"""How it looks: tables and colours on a terminal; plain aligned text, nothing cut, in a pipe."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

# Below this many messages, reading takes less time than noticing a bar.
_WORTH_A_BAR = 5_000
_ID_CHARS = 20
_LONG_ID = re.compile(r"\b[0-9a-f]{32}\b")
_SHOWN_CHARS = 8
FAILURE = "red"


@dataclass(frozen=True, slots=True)
class Column:
    """`keep`: never broken into two lines on a terminal."""

    title: str
    right: bool = False
    keep: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """Cells in the order of the columns. A failure is red where there are colours."""

    cells: Sequence[str]
    failure: bool = False


def on_terminal() -> bool:
    """Whether a person looks at standard output."""
    return sys.stdout.isatty()


def clean(text: str) -> str:
    """Events hold what strangers wrote; none of it may move the cursor or hide a line."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def short_id(text: str | None) -> str:
    """On a terminal the end of a long id, which tells ids of one second apart; in a pipe all of it."""
    if text is None:
        return "-"
    return f"…{text[-_SHOWN_CHARS:]}" if on_terminal() and len(text) > _ID_CHARS else text


def short_ids(text: str) -> str:
    """A text with the ids in it as `short_id` shows them."""
    return _LONG_ID.sub(lambda found: short_id(found[0]), text)


def clock(time: datetime) -> str:
    """UTC, to the millisecond."""
    return time.astimezone(UTC).isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")


def duration(seconds: float) -> str:
    """Three digits and a unit: `840 µs`, `12 ms`, `3.4 s`, `2 h 05 min`."""
    sign, size = ("-" if seconds < 0 else ""), abs(seconds)
    if size < 0.001:
        return f"{sign}{size * 1e6:.0f} µs"
    if size < 1:
        return f"{sign}{size * 1e3:.0f} ms"
    if size < 60:
        return f"{sign}{size:.1f} s"
    minutes, rest = divmod(round(size), 60)
    if minutes < 60:
        return f"{sign}{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours} h {minutes:02} min" if hours < 48 else f"{sign}{hours // 24} d {hours % 24} h"


def print_table(columns: Sequence[Column], rows: Sequence[Row], title: str | None = None) -> None:
    """For people."""
    rows = [Row([clean(cell) for cell in row.cells], row.failure) for row in rows]
    if title is not None:
        typer.echo(typer.style(clean(title), bold=True) if on_terminal() else clean(title))
    if on_terminal():
        _print_rich(columns, rows)
        return
    widths = [max(len(text) for text in texts) for texts in zip(*_texts(columns, rows), strict=True)]
    for cells in _texts(columns, rows):
        padded = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(cells, widths, columns, strict=True)
        ]
        typer.echo("  ".join(padded).rstrip())


def _texts(columns: Sequence[Column], rows: Sequence[Row]) -> list[Sequence[str]]:
    return [[column.title for column in columns], *(row.cells for row in rows)]


def _print_rich(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column.title, justify="right" if column.right else "left", no_wrap=column.keep, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row.cells), style=FAILURE if row.failure else None)
    Console(highlight=False).print(table)


def say(text: str, *, failure: bool = False) -> None:
    """One line."""
    shown = clean(text)
    typer.echo(typer.style(shown, fg=FAILURE) if failure and on_terminal() else shown)


def note(text: str) -> None:
    """One line beside the output, which programs may be reading."""
    typer.echo(f"devpocket: {clean(text)}", err=True)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while something long goes on and a person looks."""
    bar: Progress | None = None
    task: Any = None

    def advance(done: int, total: int) -> None:
        nonlocal bar, task
        if bar is None:
            if total < _WORTH_A_BAR or not sys.stderr.isatty():
                return
            bar = _bar()
            task = bar.add_task(label, total=total)
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
