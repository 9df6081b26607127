"""The workspace's log: one line per line of output, bounded on disk.

A line is `<seconds since the epoch> <o|e|s> <text>`; `o` is stdout, `e` stderr, `s` the system speaking.
"""

from __future__ import annotations

import os
import time

MAX_LINE_BYTES = 16 * 1024


class LogFile:
    """Appends lines; at `max_bytes` the file moves to `<path>.1`, whose earlier content is dropped."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: str, lines: list[bytes]) -> None:
        """Append lines. A full disk loses them rather than the workspace."""
        head = f"{time.time():.6f} {stream} ".encode()
        data = b"".join(head + line + b"\n" for line in lines)
        try:
            if self._size and self._size + len(data) > self._max_bytes:
                os.close(self._fd)
                os.replace(self._path, self._path + ".1")
                self._open()
            self._size += os.write(self._fd, data)
        except OSError:
            pass

    def say(self, text: str) -> None:
        """A line of the system's own."""
        self.write("s", [line.encode() for line in text.splitlines()])


class LineSplitter:
    """Cuts one pipe's bytes into lines, none longer than `MAX_LINE_BYTES`; `last` is the newest."""

    def __init__(self, log: LogFile, stream: str) -> None:
        self._log = log
        self._stream = stream
        self._rest = b""
        self.last = b""

    def feed(self, data: bytes) -> None:
        """Log every line that is complete now."""
        *complete, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > MAX_LINE_BYTES:
            complete.append(self._rest[:MAX_LINE_BYTES])
            self._rest = self._rest[MAX_LINE_BYTES:]
        lines = [part for line in complete for part in _cut(line.removesuffix(b"\r"))]
        if lines:
            self.last = lines[-1]
            self._log.write(self._stream, lines)

    def flush(self) -> None:
        """Log what never got its newline."""
        if self._rest:
            self.last = self._rest
            self._log.write(self._stream, [self._rest])
            self._rest = b""


def _cut(line: bytes) -> list[bytes]:
    if len(line) <= MAX_LINE_BYTES:
        return [line]
    return [line[at : at + MAX_LINE_BYTES] for at in range(0, len(line), MAX_LINE_BYTES)]
