"""Positions of lines, the ring that holds the last of them, and readings that number them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.runtime.port import LogLine, WorkspaceRef
from services.terminal.logs.position import ORIGIN, Position
from services.terminal.logs.reading import LogReader, NumberedLine
from services.terminal.logs.ring import LineRing
from tests.fakes.log_source import ListedLog

_BEGAN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
_REF = WorkspaceRef("env-1", "user-1")

# How many lines share a time stamp, one stamp after the other: programs write many at once.
groups = st.lists(st.integers(1, 5), max_size=6)


def log_of(sizes: list[int]) -> list[LogLine]:
    return [
        LogLine(_BEGAN + timedelta(microseconds=7 * group), "stdout", f"{group}.{number}")
        for group, size in enumerate(sizes)
        for number in range(size)
    ]


async def taken(lines: AsyncIterator[NumberedLine]) -> list[NumberedLine]:
    return [numbered async for numbered in lines]


def reader(lines: list[LogLine]) -> LogReader:
    return LogReader(ListedLog(lines), _REF)


class TestPosition:
    def test_it_survives_being_written_down(self) -> None:
        position = Position.before_all_at(_BEGAN + timedelta(microseconds=123_457)).next(_BEGAN)
        assert str(position) == "1795435200123457000-1"
        assert Position.parse(str(position)) == position
        assert position.moment == _BEGAN + timedelta(microseconds=123_457)

    def test_any_time_zone_is_the_same_moment(self) -> None:
        elsewhere = _BEGAN.astimezone(timezone(timedelta(hours=-9)))
        assert Position.before_all_at(elsewhere) == Position.before_all_at(_BEGAN)

    @pytest.mark.parametrize("text", ["", "1", "1-", "-1", "1-1-1", "a-1", "1-1\n", "٣-1", "1" * 20 + "-1"])
    def test_what_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="no position"):
            Position.parse(text)

    def test_the_largest_has_a_moment(self) -> None:
        assert Position.parse(f"{'9' * 19}-1").moment.year == 2286

    def test_positions_rise_also_when_the_clock_does_not(self) -> None:
        first = ORIGIN.next(_BEGAN)
        assert ORIGIN < first < first.next(_BEGAN) < first.next(_BEGAN + timedelta(microseconds=1))
        assert first < first.next(_BEGAN - timedelta(seconds=1))


class TestReading:
    @given(groups)
    async def test_the_rest_behind_any_line_is_exact(self, sizes: list[int]) -> None:
        whole = await taken(reader(log_of(sizes)).after(ORIGIN, follow=False))
        assert [numbered.line for numbered in whole] == log_of(sizes)
        for number, numbered in enumerate(whole, 1):
            assert await taken(reader(log_of(sizes)).after(numbered.position, follow=False)) == whole[number:]

    @given(groups, st.integers(0, 12))
    async def test_the_last_lines_have_the_positions_they_always_have(self, sizes: list[int], count: int) -> None:
        whole = await taken(reader(log_of(sizes)).after(ORIGIN, follow=False))
        last, end = await reader(log_of(sizes)).last(count)
        assert last == whole[max(len(whole) - count, 0) :]
        assert end == (whole[-1].position if whole else ORIGIN)

    @given(groups, st.data())
    async def test_lines_that_are_gone_are_noticed(self, sizes: list[int], data: st.DataObject) -> None:
        whole = await taken(reader(log_of(sizes)).after(ORIGIN, follow=False))
        stood = data.draw(st.integers(0, len(whole) - 1)) if whole else 0
        # Logs rotate between writes, and lines of one write have one stamp.
        kept = data.draw(st.integers(0, len(sizes)))
        gone = sum(sizes[:kept])
        if not whole:
            return
        rest = await taken(reader(log_of(sizes)[gone:]).after(whole[stood].position, follow=False))
        assert [numbered.position for numbered in rest] == [
            numbered.position for numbered in whole[max(stood + 1, gone) :]
        ]
        assert [numbered.after_loss for numbered in rest] == [gone > stood, *[False] * (len(rest) - 1)][: len(rest)]


class TestRing:
    def test_it_is_bounded_in_bytes_and_keeps_the_newest(self) -> None:
        ring = LineRing(10_000, ORIGIN)
        position = ORIGIN
        for number in range(1000):
            position = position.next(_BEGAN + timedelta(seconds=number))
            ring.append(position, "x" * 100)
            assert ring.bytes_from(ring.first) <= 10_000
        assert (ring.first, ring.end) == (975, 1000)
        assert ring.last == position
        assert ring.start == Position.before_all_at(_BEGAN + timedelta(seconds=974)).next(_BEGAN)
        ring.append(position.next(_BEGAN), "x" * 50_000)
        assert (ring.first, ring.end) == (1000, 1001)

    def test_wide_characters_count_as_what_they_take(self) -> None:
        ring = LineRing(10_000, ORIGIN)
        for number in range(100):
            ring.append(ring.last.next(_BEGAN + timedelta(seconds=number)), "\N{SNAKE}" * 500)
        assert ring.end - ring.first == 4

    def test_a_place_is_found_by_position(self) -> None:
        ring = LineRing(10_000, ORIGIN)
        positions = [ORIGIN.next(_BEGAN + timedelta(seconds=number)) for number in range(5)]
        for position in positions:
            ring.append(position, "x")
        assert ring.number_after(ORIGIN) == 0
        assert [ring.number_after(position) for position in positions] == [1, 2, 3, 4, 5]
        assert [ring.number_after(position.before) for position in positions] == [0, 1, 2, 3, 4]
        assert ring.bytes_from(5) == 0
        assert ring.bytes_from(3) * 5 == ring.bytes_from(0) * 2
