"""Logs that can be counted, cut, rotated and taken away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from libs.runtime.port import DriverError, LogLine, WorkspaceRef
from services.terminal.logs.reading import LogSource


class ListedLog:
    """One log, as the runtimes read it: `tail` counts first, then `since` sorts out."""

    def __init__(self, lines: Iterable[LogLine] = ()) -> None:
        self.lines = list(lines)
        self._dropped = 0
        self._more = asyncio.Event()

    def write(self, *lines: LogLine) -> None:
        """The workspace writes lines."""
        self.lines.extend(lines)
        self._more.set()

    def rotate(self, count: int) -> None:
        """The oldest lines are gone."""
        del self.lines[:count]
        self._dropped += count

    async def logs(
        self, ref: WorkspaceRef, *, follow: bool = False, tail: int | None = None, since: datetime | None = None
    ) -> AsyncGenerator[LogLine]:
        """See `ExecRuntime.logs`."""
        end = self._dropped + len(self.lines)
        for line in self.lines[:] if tail is None else self.lines[max(len(self.lines) - tail, 0) :]:
            if since is None or line.timestamp >= since:
                yield line
        while follow:
            # Like a file that rotated twice: whoever was not there in between does not notice.
            at = max(end - self._dropped, 0)
            for line in self.lines[at:]:
                if since is None or line.timestamp >= since:
                    yield line
            end = max(end, self._dropped) + len(self.lines[at:])
            if end == self._dropped + len(self.lines):
                self._more.clear()
                await self._more.wait()


@dataclass(eq=False)
class _Tap:
    cut: asyncio.Event
    error: Exception | None = None

    async def next(self, lines: AsyncIterator[LogLine]) -> LogLine | None:
        """None at the end, and when it was cut."""
        coming = asyncio.ensure_future(anext(lines, None))
        cutting = asyncio.ensure_future(self.cut.wait())
        try:
            await asyncio.wait({coming, cutting}, return_when=asyncio.FIRST_COMPLETED)
            if not self.cut.is_set():
                return coming.result()
        finally:
            coming.cancel()
            cutting.cancel()
            await asyncio.gather(coming, cutting, return_exceptions=True)
        if self.error is not None:
            raise self.error
        return None


class TappedLogs:
    """Another source, counted: how many streams were opened to follow, and how many are open.

    New readings raise `away`, or never begin while it `hangs`.
    """

    def __init__(self, source: LogSource) -> None:
        self.source = source
        self.away: DriverError | None = None
        self.hangs = False
        self.follows = 0
        self.reads = 0
        self._taps: list[_Tap] = []
        self._changed = asyncio.Condition()

    @property
    def open(self) -> int:
        """Streams that follow right now."""
        return len(self._taps)

    async def cut(self, error: Exception | None = None) -> None:
        """End every stream that follows, with an error or without."""
        cut = self._taps[:]
        for tap in cut:
            tap.error = error
            tap.cut.set()
        await self.until(lambda tapped: not any(tap in tapped._taps for tap in cut))

    async def until(self, done: Callable[[TappedLogs], bool]) -> None:
        """Wait for a state of this object."""
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: done(self))

    async def logs(
        self, ref: WorkspaceRef, *, follow: bool = False, tail: int | None = None, since: datetime | None = None
    ) -> AsyncGenerator[LogLine]:
        """See `ExecRuntime.logs`."""
        self.follows, self.reads = self.follows + follow, self.reads + (not follow)
        await self._tell()
        if self.away is not None:
            raise self.away
        if self.hangs:
            await asyncio.Event().wait()
        lines = self.source.logs(ref, follow=follow, tail=tail, since=since)
        try:
            if follow:
                async with self._tapped() as tap:
                    while (line := await tap.next(lines)) is not None:
                        yield line
            else:
                async for line in lines:
                    yield line
        finally:
            if isinstance(lines, AsyncGenerator):
                await lines.aclose()

    @asynccontextmanager
    async def _tapped(self) -> AsyncIterator[_Tap]:
        tap = _Tap(asyncio.Event())
        self._taps.append(tap)
        await self._tell()
        try:
            yield tap
        finally:
            self._taps.remove(tap)
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
