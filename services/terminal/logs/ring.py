"""The last lines of a log that is followed, ready to be sent."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from sys import getsizeof

from services.terminal.logs.position import Position

# What a line costs beside its frame: so that a ring full of empty lines is bounded as well.
_LINE_BYTES = 250


@dataclass(frozen=True, slots=True)
class HeldLine:
    """A line as clients get it. `after_loss`: the runtime had lost lines before it. `begins_at` counts bytes."""

    position: Position
    frame: str
    after_loss: bool
    begins_at: int


class LineRing:
    """Holds the newest lines, numbered from `first` up to but not including `end`, in about `capacity` bytes.

    It always holds the newest one. `start` is the position of the last line that it does not hold (any more).
    """

    def __init__(self, capacity: int, start: Position) -> None:
        self.start = start
        self.last = start
        self.first = 0
        self.end = 0
        self._capacity = capacity
        self._lines: dict[int, HeldLine] = {}
        self._end_at = 0

    def append(self, position: Position, frame: str, *, after_loss: bool = False) -> None:
        """Add a line at the end, behind all others; the oldest may go."""
        self._lines[self.end] = HeldLine(position, frame, after_loss, self._end_at)
        self._end_at += getsizeof(frame) + _LINE_BYTES
        self.end += 1
        self.last = position
        while self.end - self.first > 1 and self.bytes_from(self.first) > self._capacity:
            self.start = self._lines.pop(self.first).position
            self.first += 1

    def line(self, number: int) -> HeldLine:
        """The line of this number, which must be held."""
        return self._lines[number]

    def number_after(self, position: Position) -> int:
        """The number of the first held line behind `position`; `end` when there is none yet."""
        held = range(self.first, self.end)
        return self.first + bisect_right(held, position, key=lambda number: self._lines[number].position)

    def bytes_from(self, number: int) -> int:
        """How many bytes are held from this line on; what is no longer held does not count."""
        number = max(number, self.first)
        return self._end_at - self._lines[number].begins_at if number < self.end else 0
