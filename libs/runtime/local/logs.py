"""Reading a workspace's log: the end of it, from a moment on, and what is added."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from libs.runtime.port import LogLine

_POLL_SECONDS = 0.2
_STREAMS: dict[bytes, Literal["stdout", "stderr", "system"]] = {b"o": "stdout", b"e": "stderr", b"s": "system"}
_BLOCK_BYTES = 1 << 20


@dataclass(slots=True)
class LogCursor:
    """A place in a log that may rotate under its reader. `close` may come while another thread reads."""

    path: Path
    _file: int = -1
    _rest: bytes = field(default=b"", repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def history(self) -> bytes:
        """Everything there is, oldest first; the cursor then stands at the end. Bounded by the log's own bound."""
        with self._lock:
            return self._history()

    def more(self) -> bytes | None:
        """What was added since, in whole lines; None when the log was removed."""
        with self._lock:
            return self._more()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._release()

    def _history(self) -> bytes:
        self._open()
        older = b""
        try:
            fd = os.open(f"{self.path}.1", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            pass
        else:
            # It rotated between the two opens: what we hold open is this very file.
            if self._file < 0 or os.fstat(fd).st_ino != os.fstat(self._file).st_ino:
                older = _read_to_end(fd)
            os.close(fd)
        return older + self._complete(_read_to_end(self._file) if self._file >= 0 else b"")

    def _more(self) -> bytes | None:
        if self._file < 0:
            self._open()
            if self._file < 0:
                return b"" if self.path.parent.is_dir() else None
        data = os.read(self._file, _BLOCK_BYTES)
        if data:
            return self._complete(data)
        try:
            if os.stat(self.path).st_ino == os.fstat(self._file).st_ino:
                return b""
        except FileNotFoundError:
            if not self.path.parent.is_dir():
                return None
            return b""
        # Rotated: nothing is added to the old file any more, so one last look at it loses nothing.
        data = _read_to_end(self._file)
        self._release()
        return self._complete(data)

    def _release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        try:
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            self._file = -1

    def _complete(self, data: bytes) -> bytes:
        whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
        return whole + newline


async def read_log(
    path: Path,
    run_in_thread: Callable[..., Awaitable[object]],
    *,
    follow: bool,
    tail: int | None,
    since: datetime | None,
) -> AsyncIterator[LogLine]:
    """The lines of `ExecRuntime.logs`. A `since` without a time zone is UTC."""
    cursor = LogCursor(path)
    oldest = (since if since is None or since.tzinfo else since.replace(tzinfo=UTC)) or None

    def first() -> list[LogLine]:
        return parse_lines(_last_lines(cursor.history(), tail), oldest)

    def next_lines() -> list[LogLine] | None:
        data = cursor.more()
        return None if data is None else parse_lines(data, oldest)

    try:
        lines: list[LogLine] | None = await run_in_thread(first)  # type: ignore[assignment]
        while lines is not None:
            for line in lines:
                yield line
            if not follow:
                return
            if not lines:
                await asyncio.sleep(_POLL_SECONDS)
            lines = await run_in_thread(next_lines)  # type: ignore[assignment]
    finally:
        cursor.close()


def parse_lines(data: bytes, since: datetime | None = None) -> list[LogLine]:
    """Lines of the log file; what a crash left half written is left out."""
    threshold = since.timestamp() if since is not None else None
    found = []
    for raw in data.split(b"\n"):
        stamp, _, rest = raw.partition(b" ")
        stream, _, text = rest.partition(b" ")
        try:
            at = float(stamp)
        except ValueError:
            continue
        if stream in _STREAMS and (threshold is None or at >= threshold):
            message = text.decode("utf-8", "replace")
            found.append(LogLine(datetime.fromtimestamp(at, UTC), _STREAMS[stream], message))
    return found


def _last_lines(data: bytes, count: int | None) -> bytes:
    if count is None:
        return data
    if count <= 0:
        return b""
    at = len(data) - 1  # the last byte is the last line's newline
    for _ in range(count):
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            return data
    return data[at + 1 :]


def _read_to_end(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, _BLOCK_BYTES):
        parts.append(part)
    return b"".join(parts)
