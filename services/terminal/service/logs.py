"""Following the logs of a workspace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from libs.runtime.port import DriverError, ExecRuntime, LogLine
from services.terminal import protocol
from services.terminal.domain import Caller, Closing, Environment
from services.terminal.ports import Channel, ChannelClosedError

_AGAIN_AFTER_SECONDS = 1.0
_GOODBYE_SECONDS = 0.5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines: the last `tail`, or those since `since`; with `follow` also all that come."""

    follow: bool
    tail: int | None
    since: datetime | None


class LogViewer:
    """Sends a workspace's log to one connection, as fast as the client takes it.

    With `follow` it outlives stops and restarts of the workspace and ends only with the client or the environment.
    """

    def __init__(
        self, runtime: ExecRuntime, channel: Channel, environment: Environment, caller: Caller, query: LogQuery
    ) -> None:
        self.caller = caller
        self.environment_id = environment.id
        self._runtime = runtime
        self._channel = channel
        self._ref = environment.ref
        self._query = query
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
        with contextlib.suppress(ChannelClosedError):
            async with contextlib.aclosing(self._lines()) as lines:
                async for line in lines:
                    await self._send(protocol.log_line(line))

    async def _lines(self) -> AsyncGenerator[LogLine]:
        query = self._query
        while True:
            try:
                async for line in self._runtime.logs(
                    self._ref, follow=query.follow, tail=query.tail, since=query.since
                ):
                    # What was sent must not come again when the stream is opened once more.
                    query = replace(query, tail=None, since=line.timestamp + timedelta(microseconds=1))
                    yield line
            except DriverError as error:
                log.info("no log yet", environment_id=self.environment_id, reason=error.reason, error=str(error))
            if not query.follow:
                return
            await asyncio.sleep(_AGAIN_AFTER_SECONDS)

    async def _send(self, frame: str) -> None:
        async with self._sending:
            self._sending_since = asyncio.get_running_loop().time()
            await self._channel.send(frame)
            self._sending_since = None
