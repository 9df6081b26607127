"""What the scripts tell of files: one line of `stat`, or many for a directory."""

from __future__ import annotations

import hashlib
import stat
from bisect import insort
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from services.terminal.workspace.errors import CutShortError

# A name has 255 bytes at most.
_LONGEST_RECORD = 4096


class EntryType(StrEnum):
    """What a directory's entry is; a link is not followed."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


_TYPES = {stat.S_IFREG: EntryType.FILE, stat.S_IFDIR: EntryType.DIRECTORY, stat.S_IFLNK: EntryType.SYMLINK}


@dataclass(frozen=True, slots=True)
class Attributes:
    """Of an open file or directory. `etag` is another one after every change that the file system notices."""

    size: int
    modified: datetime
    mode: int
    etag: str

    @classmethod
    def parse(cls, line: str) -> Attributes:
        """Of `stat` with the scripts' format. Raises CutShortError."""
        try:
            mode, size, modified, _ = line.split("|", 3)
            digest = hashlib.sha256(line.encode()).hexdigest()
            return cls(int(size), _moment(modified), int(mode, 16), f'"{digest[:32]}"')
        except ValueError as error:
            raise CutShortError from error


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """Something in a directory. `size` in bytes, `mode` as from lstat."""

    name: bytes
    size: int
    modified: datetime
    mode: int

    @property
    def type(self) -> EntryType:
        """By its mode."""
        return _TYPES.get(stat.S_IFMT(self.mode), EntryType.OTHER)

    @property
    def permissions(self) -> str:
        """Octal, four digits."""
        return f"{stat.S_IMODE(self.mode):04o}"


class Listing:
    """Takes a directory in whatever order it comes, and keeps the first `limit` names after `after`: memory is
    bounded by the page, not by the directory."""

    def __init__(self, mark: str, after: bytes | None, limit: int) -> None:
        self._head = f"{mark}|".encode()
        self._between = b"|\n" + self._head
        self._after = after
        self._limit = limit
        self._rest = b""
        self._page: list[Entry] = []

    def feed(self, data: bytes) -> None:
        """Some of the script's output. Raises CutShortError."""
        *records, self._rest = (self._rest + data).split(self._between)
        for record in records:
            self._take(record)
        if len(self._rest) > _LONGEST_RECORD:
            raise CutShortError

    def finish(self) -> tuple[list[Entry], bool]:
        """The page, and whether there is more. Raises CutShortError."""
        if self._rest:
            if not self._rest.endswith(b"|\n"):
                raise CutShortError
            self._take(self._rest[:-2])
        return self._page[: self._limit], len(self._page) > self._limit

    def _take(self, record: bytes) -> None:
        try:
            mode, size, modified, name = record.removeprefix(self._head).split(b"|", 3)
            name = name.removeprefix(b"./")
            if self._after is not None and name <= self._after:
                return
            if len(self._page) > self._limit and name >= self._page[-1].name:
                return
            entry = Entry(name, int(size), _moment(modified.decode("ascii")), int(mode, 16))
        except ValueError as error:
            raise CutShortError from error
        insort(self._page, entry)
        # One more than asked for says that there is more.
        del self._page[self._limit + 1 :]


def _moment(seconds: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (OverflowError, OSError) as error:
        raise ValueError from error
