"""The log file of one process: bounded, with the end of it in memory for error messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

_MAX_FILE_BYTES = 10 << 20
_MAX_LINE_BYTES = 64 << 10
_TAIL_LINES = 20


class LogFile:
    """Takes lines, keeps them. One older file (`<name>.log.1`) is kept beside it."""

    def __init__(self, path: Path, on_line: Callable[[str], None], *, max_bytes: int = _MAX_FILE_BYTES) -> None:
        self._path = path
        self._on_line = on_line
        self._max_bytes = max_bytes
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._rotate()
        self._file = path.open("ab", buffering=0)
        self._size = 0

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines."""
        return tuple(self._tail)

    def close(self) -> None:
        """Nothing more comes."""
        self._file.close()

    def write(self, line: bytes) -> None:
        """One line, without its end."""
        text = line.decode(errors="replace").rstrip("\r")
        self._tail.append(text)
        self._on_line(text)
        if self._size > self._max_bytes:
            self._file.close()
            self._rotate()
            self._file = self._path.open("ab", buffering=0)
            self._size = 0
        self._size += self._file.write(line + b"\n")

    def _rotate(self) -> None:
        if self._path.exists():
            self._path.replace(self._path.with_name(self._path.name + ".1"))


class LineBuffer:
    """The raw output of one process, as lines of a log that others may write to as well."""

    def __init__(self, log: LogFile) -> None:
        self._log = log
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """More output; lines may be split anywhere. A line without an end is cut at 64 KiB."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._log.write(line)

    def flush(self) -> None:
        """The process has ended, so what is left is a line, too."""
        if self._rest:
            self._log.write(self._rest)
            self._rest = b""
