"""Showing the log of a workspace to one client."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import datetime

import structlog

from libs.runtime.port import DriverError, WorkspaceNotFoundError
from services.terminal import protocol
from services.terminal.domain import Caller, Closing, Environment
from services.terminal.logs import frames
from services.terminal.logs.feed import LogFeeds
from services.terminal.logs.position import ORIGIN, Position
from services.terminal.logs.reading import NumberedLine
from services.terminal.logs.trouble import UNAVAILABLE, sentence
from services.terminal.ports import Channel, ChannelClosedError

_GOODBYE_SECONDS = 0.5
# How often a viewer reads what the feed, which the log floods, no longer holds, before it leaves the rest to a gap.
_CATCH_UPS = 3

_FAILED = Closing(1011, "log_failed", "The log could not be read, please connect again")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines: those behind `after`, else the last `tail`, else all; none from before `since`.

    With `follow` also all that come.
    """

    follow: bool
    tail: int | None = None
    since: datetime | None = None
    after: Position | None = None


class LogViewer:
    """Sends a workspace's log to one connection, as fast as the client takes it.

    What was written until now comes straight from the runtime, what comes later from the feed that all viewers share.
    With `follow` it outlives stops and restarts of the workspace, and outages of its machine, and ends only with the
    client or the environment.
    """

    def __init__(
        self, feeds: LogFeeds, channel: Channel, environment: Environment, caller: Caller, query: LogQuery
    ) -> None:
        self.caller = caller
        self.environment_id = environment.id
        self._feeds = feeds
        self._channel = channel
        self._ref = environment.ref
        self._reader = feeds.reader(environment.ref)
        self._query = query
        self._floor = ORIGIN if query.since is None else Position.before_all_at(query.since)
        # Of the last line that was sent or passed over; None until one is known.
        self._position = query.after
        self._closing: Closing | None = None
        self._sending_since: float | None = None
        self._sending = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def close(self, closing: Closing) -> None:
        """Say goodbye and end."""
        if self._closing is None:
            self._closing = closing
            if self._task is not None:
                self._task.cancel()

    def stalled_for(self) -> float:
        """For how many seconds the client has not taken the line at hand."""
        since = self._sending_since
        return 0.0 if since is None else asyncio.get_running_loop().time() - since

    async def answer(self, frame: str) -> None:
        """Send a frame between lines."""
        with contextlib.suppress(ChannelClosedError):
            await self._send(frame)

    async def run(self) -> None:
        """Send until the lines end, `close` is called or the client is gone."""
        if self._closing is None:
            self._task = asyncio.create_task(self._send_lines())
            try:
                await asyncio.wait({self._task})
            finally:
                self._task.cancel()
        with contextlib.suppress(ChannelClosedError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._goodbye()

    async def _goodbye(self) -> None:
        if self._closing is None:
            await self._channel.close(1000, "end of log")
        else:
            await self._channel.send(protocol.error(self._closing.code, self._closing.message))
            await self._channel.close(self._closing.socket_code, self._closing.code)

    async def _send_lines(self) -> None:
        try:
            if self._query.follow:
                await self._follow()
            else:
                await self._send_past()
        except ChannelClosedError:
            return
        except WorkspaceNotFoundError:
            log.info("no log to show", environment_id=self.environment_id)
        except DriverError as error:
            self._log(error)
            self._closing = self._closing or Closing(4503, UNAVAILABLE, sentence(error))
        except Exception as error:
            log.warning("log lost", environment_id=self.environment_id, error=repr(error))
            self._closing = self._closing or _FAILED

    async def _follow(self) -> None:
        position = await self._send_past_patiently()
        for _ in range(_CATCH_UPS):
            if self._feeds.reaches(self._ref, position):
                break
            position = await self._send_past_patiently()
        with self._feeds.watching(self._ref, position, self._floor) as watcher:
            while True:
                frame = watcher.next()
                if frame is None:
                    await watcher.wait()
                else:
                    await self._send(frame)

    async def _send_past_patiently(self) -> Position:
        """As `_send_past`; waits for a workspace that is not there yet, and for a machine that is away."""
        failures = 0
        while True:
            try:
                return await self._send_past()
            except WorkspaceNotFoundError:
                log.debug("no log yet", environment_id=self.environment_id)
            except DriverError as error:
                failures += 1
                # What is over by the next attempt is no outage; news of a cluster, say, may come a moment late.
                if failures == 2:
                    self._log(error)
                    await self._send(protocol.error(UNAVAILABLE, sentence(error)))
            await asyncio.sleep(self._feeds.limits.again_seconds)

    async def _send_past(self) -> Position:
        """What was written until now, as far as it was not sent; where that ends."""
        if self._position is None and self._query.tail is not None:
            lines, self._position = await self._reader.last(self._query.tail)
            for numbered in lines:
                await self._send_line(numbered)
            return self._position
        start = self._floor if self._position is None else self._position
        at = start
        async with contextlib.aclosing(self._reader.after(start, follow=False)) as following:
            async for numbered in following:
                if numbered.after_loss:
                    await self._send(frames.gap(at, numbered.position.before))
                await self._send_line(numbered)
                at = self._position = numbered.position
        if at == start:
            self._position = await self._stand(start)
        return self._position or start

    async def _stand(self, start: Position) -> Position:
        """Where in the log a viewer stands who finds nothing behind `start`: there, unless the log ends before."""
        _, end = await self._reader.last(0)
        if end >= start:
            return start
        if self._position is not None:
            await self._send(frames.gap(start, end))
        return end

    async def _send_line(self, numbered: NumberedLine) -> None:
        if numbered.position > self._floor:
            await self._send(protocol.log_line(numbered.line, str(numbered.position)))

    def _log(self, error: DriverError) -> None:
        log.info("log not readable", environment_id=self.environment_id, reason=error.reason, error=str(error))

    async def _send(self, frame: str) -> None:
        async with self._sending:
            self._sending_since = asyncio.get_running_loop().time()
            await self._channel.send(frame)
            self._sending_since = None
