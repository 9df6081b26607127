"""Where a line stands in a workspace's log. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

POSITION_PATTERN = r"^[0-9]{1,19}-[0-9]{1,9}$"


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A line's time stamp in nanoseconds since 1970, and which of the lines with this very stamp it is, from 1 on.

    A count of 0 is the place before the first of them. Every reading of a log gives a line the same position, as long
    as it begins at the first line with that line's stamp.
    """

    stamp: int
    count: int

    @classmethod
    def before_all_at(cls, moment: datetime) -> Position:
        """The place before the lines of this moment, which has a time zone."""
        return cls((moment - _EPOCH) // _MICROSECOND * 1000, 0)

    @classmethod
    def parse(cls, text: str) -> Position:
        """What `str` has made. Raises ValueError."""
        if not re.fullmatch(POSITION_PATTERN, text):
            raise ValueError(f"{text!r} is no position in a log")
        stamp, _, count = text.partition("-")
        return cls(int(stamp), int(count))

    def __str__(self) -> str:
        return f"{self.stamp}-{self.count}"

    @property
    def moment(self) -> datetime:
        """Its time stamp as the runtimes take it, to the microsecond."""
        return _EPOCH + self.stamp // 1000 * _MICROSECOND

    @property
    def before(self) -> Position:
        """The place right before this line: whoever stands there gets it next."""
        return Position(self.stamp, self.count - 1)

    def next(self, moment: datetime) -> Position:
        """The position of the line that follows this one, written at `moment`.

        A clock that was set back is not followed back: positions only rise.
        """
        stamp = Position.before_all_at(moment).stamp
        return Position(stamp, 1) if stamp > self.stamp else Position(self.stamp, self.count + 1)


ORIGIN = Position(0, 0)
"""Before every line there can be."""
