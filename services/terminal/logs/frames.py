"""Frames about a log's lines, beside those of `services.terminal.protocol`."""

from __future__ import annotations

from services.terminal.logs.position import Position


def gap(start: Position, end: Position) -> str:
    """The lines behind `start` up to `end` are not to be had any more; the log goes on behind `end`.

    `end` may lie before `start`: then the log is not the one that `start` was a position in.
    """
    return f'{{"type":"gap","from":"{start}","to":"{end}"}}'
