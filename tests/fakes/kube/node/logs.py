"""A container's log, as the kubelet keeps and serves it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

_KEEP = 50_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One line with its newline, if it had one. `nanos` since the epoch."""

    nanos: int
    stream: str
    data: bytes

    def stamp(self) -> str:
        """RFC 3339 with nanoseconds, as `timestamps=true` shows it."""
        seconds, rest = divmod(self.nanos, 1_000_000_000)
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What a reader asked for. `since` in nanoseconds."""

    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: int | None = None
    limit_bytes: int | None = None


class ContainerLog:
    """Lines in memory; followers wait for more until `close`."""

    def __init__(self) -> None:
        self._entries: deque[tuple[int, Entry]] = deque(maxlen=_KEEP)
        self._count = 0
        self._more = asyncio.Event()
        self.closed = False

    def append(self, stream: str, data: bytes) -> None:
        """One line."""
        loop_time = datetime.now(UTC)
        nanos = int(loop_time.timestamp() * 1_000_000) * 1000
        self._entries.append((self._count, Entry(nanos, stream, data)))
        self._count += 1
        self._wake()

    async def more(self) -> None:
        """Return at the next line, or at the end."""
        if not self.closed:
            await self._more.wait()

    def tail(self, lines: int = 80, size: int = 2048) -> str:
        """The end, as `FallbackToLogsOnError` puts it into the status."""
        entries = list(self._entries)[-lines:]
        return b"".join(entry.data for _, entry in entries)[-size:].decode("utf-8", "replace")

    def close(self) -> None:
        """The container ended: followers come to their end too."""
        self.closed = True
        self._wake()

    async def read(self, query: LogQuery) -> AsyncGenerator[bytes, None]:
        """The text of a log request."""
        left, begins = query.limit_bytes, True
        async for entry in self._select(query):
            # A long line is kept in pieces; only its first one gets a time.
            data = (entry.stamp().encode() + b" " if query.timestamps and begins else b"") + entry.data
            begins = entry.data.endswith(b"\n")
            if left is not None:
                data, left = data[:left], left - len(data[:left])
            yield data
            if left == 0:
                return

    async def _select(self, query: LogQuery) -> AsyncIterator[Entry]:
        entries = [pair for pair in self._entries if query.since is None or pair[1].nanos >= query.since]
        if query.tail is not None:
            entries = entries[len(entries) - query.tail :] if query.tail < len(entries) else entries
        seen = self._count
        for _, entry in entries:
            yield entry
        while query.follow:
            fresh = [pair for pair in self._entries if pair[0] >= seen]
            seen = self._count
            for _, entry in fresh:
                yield entry
            if self._count == seen:
                if self.closed:
                    return
                await self._more.wait()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()


async def collect(reader: asyncio.StreamReader, stream: str, log: ContainerLog) -> None:
    """Copy what a process writes into the log, line by line; the rest without a newline at its end."""
    rest = b""
    while chunk := await reader.read(65536):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            log.append(stream, line + b"\n")
        while len(rest) > 16384:
            log.append(stream, rest[:16384])
            rest = rest[16384:]
    if rest:
        log.append(stream, rest)
