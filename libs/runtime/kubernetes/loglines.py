"""Lines of a pod's log as the API gives them with `timestamps=true`: a time, a space, the text. Pure.

The API does not say which stream a line came from. A workspace image says it itself, by a mark at the beginning of a
line: `\\x1ee` is standard error, `\\x1es` a notice of the system. What has no mark is standard output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from libs.runtime.port import LogLine

# A program that never breaks its lines must not fill our memory: longer lines come in pieces.
MAX_LINE_BYTES = 256 * 1024
_MARKS: dict[bytes, Literal["stderr", "system"]] = {b"\x1ee": "stderr", b"\x1es": "system"}


@dataclass(frozen=True, slots=True)
class RawLine:
    """One line: `stamp` is its time in nanoseconds, `text` what was written, marks included."""

    stamp: int
    text: bytes

    @property
    def line(self) -> LogLine:
        """As the port has it."""
        stream = _MARKS.get(self.text[:2])
        text = self.text if stream is None else self.text[2:]
        at = datetime.fromtimestamp(self.stamp // 1_000_000_000, UTC).replace(
            microsecond=self.stamp // 1000 % 1_000_000
        )
        return LogLine(at, stream or "stdout", text.removesuffix(b"\r").decode("utf-8", "replace"))

    def encode(self) -> bytes:
        """As the API writes it."""
        seconds, nanoseconds = divmod(self.stamp, 1_000_000_000)
        at = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{at}.{nanoseconds:09d}Z ".encode() + self.text + b"\n"


@dataclass(slots=True)
class LineSplitter:
    """Makes lines of chunks. What follows an over-long piece carries the time of its beginning."""

    _rest: bytearray = field(default_factory=bytearray)
    _stamp: int | None = None

    def feed(self, chunk: bytes) -> Iterator[RawLine]:
        """The lines that this chunk completes."""
        self._rest += chunk
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        for line in lines:
            yield from self._take(line)
            self._stamp = None
        if len(self._rest) > MAX_LINE_BYTES:
            pieces, self._rest = bytes(self._rest), bytearray()
            yield from self._take(pieces)

    def end(self) -> Iterator[RawLine]:
        """What is left when nothing more comes."""
        if self._rest:
            yield from self._take(bytes(self._rest))

    def _take(self, line: bytes) -> Iterator[RawLine]:
        if self._stamp is not None:
            if line:
                yield RawLine(self._stamp, line)
            return
        word, _, text = line.partition(b" ")
        stamp = parse_stamp(word)
        if stamp is not None:
            self._stamp = stamp
            yield RawLine(stamp, text)


@dataclass(slots=True)
class Cursor:
    """Where a reader stands in one pod's log: lets through each line once, however often it is asked for anew."""

    stamp: int = 0
    _given: int = 0
    _seen: int = 0

    def rewind(self) -> None:
        """The log is read again, from the second of the last line on."""
        self._seen = 0

    def is_new(self, raw: RawLine) -> bool:
        """True for a line that was not let through before."""
        if raw.stamp < self.stamp:
            return False
        if raw.stamp == self.stamp:
            self._seen += 1
            if self._seen <= self._given:
                return False
            self._given = self._seen
            return True
        self.stamp, self._given, self._seen = raw.stamp, 1, 1
        return True


def parse_stamp(word: bytes) -> int | None:
    """Nanoseconds since 1970 of an RFC 3339 time; None for what is none."""
    text = word.decode("ascii", "replace")
    whole, dot, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))] if dot else ""
    zone = rest[len(digits) :] if dot else ""
    try:
        at = datetime.fromisoformat(whole + zone)
    except ValueError:
        return None
    if at.tzinfo is None:
        return None
    return int(at.timestamp()) * 1_000_000_000 + int(digits[:9].ljust(9, "0") or 0)


def parse(content: bytes) -> list[RawLine]:
    """All lines of a whole log."""
    splitter = LineSplitter()
    return [*splitter.feed(content), *splitter.end()]


def newest(lines: Iterable[RawLine], max_bytes: int) -> list[RawLine]:
    """The end of it that fits into so many bytes."""
    kept: list[RawLine] = []
    size = 0
    for raw in reversed(list(lines)):
        size += len(raw.text) + 32
        if size > max_bytes:
            break
        kept.append(raw)
    return kept[::-1]
