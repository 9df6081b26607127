"""Lines of a pod's log: split, timed, marked, and each given once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from libs.runtime.kubernetes.loglines import MAX_LINE_BYTES, Cursor, LineSplitter, newest, parse, parse_stamp

NOON = 1_795_608_000_000_000_000


def stamped(offset: int, text: str) -> bytes:
    """A line so many nanoseconds after noon."""
    at = datetime.fromtimestamp(NOON // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{at}.{offset:09d}Z {text}\n".encode()


@pytest.mark.parametrize(
    ("word", "nanoseconds"),
    [
        (b"1970-01-01T00:00:01Z", 10**9),
        (b"1970-01-01T00:00:01.5Z", 1_500_000_000),
        (b"1970-01-01T00:00:01.000000007Z", 1_000_000_007),
        (b"1970-01-01T01:00:01.25+01:00", 1_250_000_000),
    ],
)
def test_times(word: bytes, nanoseconds: int) -> None:
    assert parse_stamp(word) == nanoseconds


@pytest.mark.parametrize("word", [b"", b"failed", b"2026-11-25", b"1970-01-01T00:00:01", b"\xff"])
def test_what_is_no_time(word: bytes) -> None:
    assert parse_stamp(word) is None


def test_marks_become_streams() -> None:
    content = stamped(1, "out") + stamped(2, "\x1eeerr") + stamped(3, "\x1esnotice") + stamped(4, "odd\r")
    lines = [raw.line for raw in parse(content)]
    assert [(line.stream, line.message) for line in lines] == [
        *(("stdout", "out"), ("stderr", "err")),
        *(("system", "notice"), ("stdout", "odd")),
    ]
    assert lines[0].timestamp.tzinfo is UTC


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_chunks_may_end_anywhere(size: int) -> None:
    content = b"".join(stamped(number, f"line {number}") for number in range(20)) + stamped(21, "no newline")[:-1]
    splitter = LineSplitter()
    lines = [raw for at in range(0, len(content), size) for raw in splitter.feed(content[at : at + size])]
    lines += splitter.end()
    assert [raw.text.decode() for raw in lines] == [*(f"line {number}" for number in range(20)), "no newline"]


def test_a_line_without_end_is_bounded_and_keeps_its_time() -> None:
    splitter = LineSplitter()
    content = stamped(5, "x" * (3 * MAX_LINE_BYTES))
    lines = [raw for at in range(0, len(content), 4096) for raw in splitter.feed(content[at : at + 4096])]
    assert len(lines) > 1
    assert {raw.stamp for raw in lines} == {NOON + 5}
    assert sum(len(raw.text) for raw in lines) == 3 * MAX_LINE_BYTES


def test_what_is_encoded_is_read_again() -> None:
    content = stamped(1, "a b") + stamped(2, "") + stamped(3, "\x1eec")
    assert b"".join(raw.encode() for raw in parse(content)) == content


def test_a_cursor_gives_each_line_once_however_often_it_is_read() -> None:
    first = parse(stamped(1, "a") + stamped(2, "b") + stamped(2, "c"))
    again = parse(stamped(1, "a") + stamped(2, "b") + stamped(2, "c") + stamped(2, "d") + stamped(3, "e"))
    cursor, given = Cursor(), []
    for reading in (first, again, again):
        cursor.rewind()
        given += [raw.text for raw in reading if cursor.is_new(raw)]
    assert given == [b"a", b"b", b"c", b"d", b"e"]


def test_newest_keeps_the_end() -> None:
    lines = parse(b"".join(stamped(number, "x" * 100) for number in range(50)))
    kept = newest(lines, 1000)
    assert 0 < len(kept) < 10
    assert kept[-1] == lines[-1]
