"""A log that is followed: one stream from the runtime for all who watch it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

import structlog

from libs.runtime.port import DriverError, WorkspaceNotFoundError, WorkspaceRef
from services.terminal import protocol
from services.terminal.logs import frames
from services.terminal.logs.position import ORIGIN, Position
from services.terminal.logs.reading import LogReader, LogSource
from services.terminal.logs.ring import LineRing
from services.terminal.logs.trouble import UNAVAILABLE, sentence

# A stream that was open for so long before it broke was a good one, though it said nothing.
_GOOD_AFTER_SECONDS = 60.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """Bounds of one feed.

    It reads no further while even the fastest watcher is `window_bytes` behind; a slower one loses lines to a gap once
    `ring_bytes` are over. A stream that nobody has taken from for `patience_seconds` is closed, and opened where it was
    left: a log that rotates under a stream at rest might lose lines without a word, one that is opened anew says so.
    For `linger_seconds` after the last watcher left the stream stays open, for those who come back; what ended or could
    not be read is tried again after `again_seconds`. A log that said nothing for `quiet_seconds` is looked at, which
    must take no longer than `answer_seconds`: a stream whose machine is gone says nothing either.
    """

    ring_bytes: int = 1024 * 1024
    window_bytes: int = 256 * 1024
    patience_seconds: float = 5.0
    linger_seconds: float = 10.0
    again_seconds: float = 1.0
    quiet_seconds: float = 30.0
    answer_seconds: float = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class _Outage:
    message: str


class Watcher:
    """One viewer's place in a feed."""

    def __init__(self, feed: Feed, position: Position, floor: Position) -> None:
        self.number = feed.ring.number_after(position)
        self._feed = feed
        self._position = max(position, floor)
        self._is_behind = position < feed.ring.start
        self._told = feed.outage
        self._woken = asyncio.Event()

    def next(self) -> str | None:
        """The next frame to send; None when there is none yet."""
        ring = self._feed.ring
        while self.number < ring.end:
            if self.number < ring.first:
                self.number, self._is_behind = ring.first, True
            held = ring.line(self.number)
            if (self._is_behind or held.after_loss) and self._position < held.position.before:
                gap = frames.gap(self._position, held.position.before)
                self._position, self._is_behind = held.position.before, False
                return gap
            self._is_behind = False
            self.number += 1
            self._feed.progressed()
            if held.position > self._position:
                self._position = held.position
                return held.frame
        return self._outage()

    async def wait(self) -> None:
        """Until there may be a next frame; to be called right after there was none."""
        self._woken.clear()
        await self._woken.wait()

    def wake(self) -> None:
        """There may be a next frame."""
        self._woken.set()

    def _outage(self) -> str | None:
        outage = self._feed.outage
        if outage is None or outage is self._told:
            return None
        self._told = outage
        return protocol.error(UNAVAILABLE, outage.message)


class Feed:
    """Follows one log from `start` on, until it is stopped; where the runtime's stream breaks, it goes on after the
    last line.
    """

    def __init__(self, reader: LogReader, start: Position, limits: FeedLimits) -> None:
        self.ring = LineRing(limits.ring_bytes, start)
        self.outage: _Outage | None = None
        self._reader = reader
        self._limits = limits
        self._watchers: set[Watcher] = set()
        self._left_number = 0
        self._room = asyncio.Event()
        self._heard_at = asyncio.get_running_loop().time()
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._look())]

    @property
    def is_watched(self) -> bool:
        """Somebody watches."""
        return bool(self._watchers)

    def join(self, position: Position, floor: Position) -> Watcher:
        """A viewer who has seen everything up to `position`, and wants nothing from before `floor`."""
        watcher = Watcher(self, position, floor)
        self._watchers.add(watcher)
        self._room.set()
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """The viewer is gone."""
        self._watchers.discard(watcher)
        self._left_number = watcher.number

    def progressed(self) -> None:
        """A watcher has taken a line."""
        self._room.set()

    async def stop(self) -> None:
        """Close the runtime's stream; watchers get no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            began_at = loop.time()
            try:
                await self._read()
            except WorkspaceNotFoundError:
                log.debug("no log to follow yet")
            except Exception as error:
                if self._heard_at >= began_at or loop.time() - began_at > _GOOD_AFTER_SECONDS:
                    self.outage, failures = None, 0
                failures += 1
                # What is over by the next attempt is no outage.
                if failures > 1:
                    self._failed(error)
            if self._has_room():
                await asyncio.sleep(self._limits.again_seconds)
            else:
                await self._wait_for_room()

    async def _read(self) -> None:
        """Until the stream ends, or nobody takes from it."""
        async with aclosing(self._reader.after(self.ring.last, follow=True)) as lines:
            async for numbered in lines:
                self.outage, self._heard_at = None, asyncio.get_running_loop().time()
                frame = protocol.log_line(numbered.line, str(numbered.position))
                self.ring.append(numbered.position, frame, after_loss=numbered.after_loss)
                self._wake_all()
                if not self._has_room() and not await self._gets_room():
                    return

    async def _look(self) -> None:
        """Find out whether a log that is quiet could be read at all."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._limits.quiet_seconds)
            if not self._watchers or loop.time() - self._heard_at < self._limits.quiet_seconds:
                continue
            try:
                async with asyncio.timeout(self._limits.answer_seconds):
                    await self._reader.last(0)
            except WorkspaceNotFoundError:
                continue
            except Exception as error:
                self._failed(error)
            else:
                self.outage = None

    def _failed(self, error: Exception) -> None:
        if self.outage is None:
            reason = error.reason if isinstance(error, DriverError) else type(error).__name__
            log.warning("a log cannot be followed", reason=reason, error=str(error))
            self.outage = _Outage(sentence(error))
            self._wake_all()

    def _wake_all(self) -> None:
        for watcher in self._watchers:
            watcher.wake()

    def _has_room(self) -> bool:
        reader = max((watcher.number for watcher in self._watchers), default=self._left_number)
        return self.ring.bytes_from(reader) <= self._limits.window_bytes

    async def _gets_room(self) -> bool:
        try:
            async with asyncio.timeout(self._limits.patience_seconds):
                await self._wait_for_room()
        except TimeoutError:
            return False
        return True

    async def _wait_for_room(self) -> None:
        while not self._has_room():
            self._room.clear()
            await self._room.wait()


class LogFeeds:
    """The feeds of this process, one for each workspace that somebody watches or has just watched."""

    def __init__(self, source: LogSource, limits: FeedLimits | None = None) -> None:
        self.limits = limits or FeedLimits()
        self._source = source
        self._feeds: dict[WorkspaceRef, Feed] = {}
        self._lingering: dict[WorkspaceRef, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._feeds)

    def reader(self, ref: WorkspaceRef) -> LogReader:
        """For what is not followed."""
        return LogReader(self._source, ref)

    def reaches(self, ref: WorkspaceRef, position: Position) -> bool:
        """Whether whoever watches from this position on misses nothing."""
        feed = self._feeds.get(ref)
        return feed is None or feed.ring.start <= position

    @contextmanager
    def watching(self, ref: WorkspaceRef, position: Position, floor: Position = ORIGIN) -> Iterator[Watcher]:
        """See `Feed.join`, for the length of the block. The first watcher's `position` is where the feed begins."""
        lingering = self._lingering.pop(ref, None)
        if lingering is not None:
            lingering.cancel()
        feed = self._feeds.get(ref)
        if feed is None:
            feed = self._feeds[ref] = Feed(self.reader(ref), position, self.limits)
        watcher = feed.join(position, floor)
        try:
            yield watcher
        finally:
            feed.leave(watcher)
            if not feed.is_watched and self._feeds.get(ref) is feed:
                self._lingering[ref] = asyncio.create_task(self._linger(ref, feed))

    async def close(self) -> None:
        """Stop all at once; for the end of the process."""
        lingering, feeds = [*self._lingering.values()], [*self._feeds.values()]
        self._lingering, self._feeds = {}, {}
        for task in lingering:
            task.cancel()
        await asyncio.gather(*lingering, *(feed.stop() for feed in feeds), return_exceptions=True)

    async def _linger(self, ref: WorkspaceRef, feed: Feed) -> None:
        await asyncio.sleep(self.limits.linger_seconds)
        del self._lingering[ref], self._feeds[ref]
        await feed.stop()
