"""A workspace's log as the runtime has it, each line with its position."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from libs.runtime.port import LogLine, WorkspaceRef
from services.terminal.logs.position import ORIGIN, Position


class LogSource(Protocol):
    """What of `ExecRuntime` is needed here."""

    def logs(
        self, ref: WorkspaceRef, *, follow: bool = False, tail: int | None = None, since: datetime | None = None
    ) -> AsyncIterator[LogLine]:
        """See `ExecRuntime.logs`."""
        ...


@dataclass(frozen=True, slots=True)
class NumberedLine:
    """A line and its position. `after_loss`: lines before it are gone, so they cannot be given any more."""

    position: Position
    line: LogLine
    after_loss: bool = False


class LogReader:
    """Reads one workspace's log. Every reading raises what `LogSource.logs` raises."""

    def __init__(self, source: LogSource, ref: WorkspaceRef) -> None:
        self._source = source
        self._ref = ref

    async def after(self, position: Position, *, follow: bool) -> AsyncGenerator[NumberedLine]:
        """The lines behind `position`, oldest first; with `follow` also all that come, until it is closed."""
        at, is_first = Position(position.stamp, 0), True
        since = position.moment if position > ORIGIN else None
        async with self._lines(follow=follow, since=since) as lines:
            async for line in lines:
                found, at = at, at.next(line.timestamp)
                if at > position:
                    yield NumberedLine(at, line, after_loss=is_first and found < position)
                    is_first = False

    async def last(self, count: int) -> tuple[list[NumberedLine], Position]:
        """The last `count` lines, and the position of the very last one there is."""
        # One more than wanted shows whether lines with the first one's stamp were cut off: they would be counted wrong.
        asked = max(count, 1) + 1
        async with self._lines(tail=asked) as lines:
            found = [line async for line in lines]
        if not found:
            return [], ORIGIN
        first = found[0].timestamp
        at = Position.before_all_at(first)
        if len(found) == asked and found[1].timestamp == first:
            there = await self._count_at(first)
            at = Position(at.stamp, max(there - sum(line.timestamp == first for line in found), 0))
        numbered = []
        for line in found:
            at = at.next(line.timestamp)
            numbered.append(NumberedLine(at, line))
        return numbered[-count:] if count else [], at

    async def _count_at(self, moment: datetime) -> int:
        count = 0
        async with self._lines(since=moment) as lines:
            async for line in lines:
                if line.timestamp > moment:
                    break
                count += 1
        return count

    @asynccontextmanager
    async def _lines(
        self, *, follow: bool = False, tail: int | None = None, since: datetime | None = None
    ) -> AsyncGenerator[AsyncIterator[LogLine]]:
        lines = self._source.logs(self._ref, follow=follow, tail=tail, since=since)
        if isinstance(lines, AsyncGenerator):
            # Now, not whenever the garbage is collected: it may hold a connection.
            async with aclosing(lines):
                yield lines
        else:
            yield lines
