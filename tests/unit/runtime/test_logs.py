"""The log file: written by the shim, read by the driver."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from libs.runtime.local.logs import LogCursor, parse_lines, read_log
from libs.runtime.local.shim.logfile import MAX_LINE_BYTES, LineSplitter, LogFile
from libs.runtime.port import LogLine

_Result = TypeVar("_Result")


async def in_thread(work: Callable[[], _Result]) -> _Result:
    return await asyncio.to_thread(work)


async def read(path: Path, *, tail: int | None = None, since: datetime | None = None) -> list[LogLine]:
    return [line async for line in read_log(path, in_thread, follow=False, tail=tail, since=since)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "log"


def put(path: Path, text: str) -> None:
    path.write_text(text)


def splitter(path: Path, max_bytes: int = 1 << 20) -> LineSplitter:
    return LineSplitter(LogFile(str(path), max_bytes), "o")


async def test_lines_are_cut_wherever_the_pipe_cut_them(path: Path) -> None:
    lines = splitter(path)
    for part in (b"on", b"e\ntwo\r", b"\n\nfo", b"ur\nrest"):
        lines.feed(part)
    lines.flush()
    assert [line.message for line in await read(path)] == ["one", "two", "", "four", "rest"]


async def test_long_lines_are_cut(path: Path) -> None:
    lines = splitter(path)
    lines.feed(b"x" * (MAX_LINE_BYTES * 2 + 5))
    lines.feed(b"\nafter\n")
    assert [len(line.message) for line in await read(path)] == [MAX_LINE_BYTES, MAX_LINE_BYTES, 5, 5]


async def test_the_disk_use_is_bounded_and_the_newest_stay(path: Path) -> None:
    log = LogFile(str(path), 10_000)
    for number in range(2000):
        log.write("o", [b"line %d" % number])
    assert sum(file.stat().st_size for file in path.parent.iterdir()) <= 20_000
    assert sorted(file.name for file in path.parent.iterdir()) == ["log", "log.1"]
    lines = [line.message for line in await read(path)]
    assert lines[-1] == "line 1999"
    assert lines == [f"line {number}" for number in range(2000 - len(lines), 2000)]
    assert [line.message for line in await read(path, tail=2)] == ["line 1998", "line 1999"]


async def test_following_survives_rotation(path: Path) -> None:
    log = LogFile(str(path), 5_000)
    seen: list[int] = []
    lines = read_log(path, in_thread, follow=True, tail=None, since=None)
    for start in range(0, 500, 50):
        for number in range(start, start + 50):
            log.write("o", [b"%d" % number])
        while len(seen) < start + 50:
            seen.append(int((await anext(lines)).message))
    assert seen == list(range(500))
    assert path.with_name("log.1").exists()


async def test_following_ends_with_the_workspace(path: Path) -> None:
    LogFile(str(path), 5_000).say("bye")
    lines = read_log(path, in_thread, follow=True, tail=None, since=None)
    assert (await anext(lines)).message == "bye"
    await asyncio.to_thread(shutil.rmtree, path.parent)
    async with asyncio.timeout(60):
        assert [line async for line in lines] == []


async def test_following_before_there_is_a_log(path: Path) -> None:
    has_looked = asyncio.Event()

    async def look(work: Callable[[], _Result]) -> _Result:
        found = await in_thread(work)
        has_looked.set()
        return found

    lines = read_log(path, look, follow=True, tail=None, since=None)
    first = asyncio.ensure_future(anext(lines))
    await has_looked.wait()
    LogFile(str(path), 5_000).say("hello")
    async with asyncio.timeout(60):
        assert (await first).message == "hello"


async def test_since_is_inclusive_and_utc_by_default(path: Path) -> None:
    put(path, "1700000000.000000 o old\n1700000010.000000 e new\n")
    moment = datetime(2023, 11, 14, 22, 13, 30, tzinfo=UTC)
    for since in (moment, moment.replace(tzinfo=None)):
        assert [line.message for line in await read(path, since=since)] == ["new"]
    assert await read(path, since=moment + timedelta(seconds=1)) == []


@pytest.mark.parametrize(("tail", "expected"), [(0, []), (1, ["c"]), (2, ["b", "c"]), (99, ["a", "b", "c"])])
async def test_tail(path: Path, tail: int, expected: list[str]) -> None:
    put(path, "".join(f"1700000000.0 o {letter}\n" for letter in "abc"))
    assert [line.message for line in await read(path, tail=tail)] == expected


def test_torn_lines_are_left_out() -> None:
    lines = parse_lines(b"garbage\n1700000000.0 x what\n\n1700000000.5 s fine \xff\n")
    assert [(line.stream, line.message) for line in lines] == [("system", "fine �")]


def test_a_line_in_the_making_waits(path: Path) -> None:
    path.write_text("1700000000.0 o whole\n1700000000.0 o ha")
    cursor = LogCursor(path)
    assert b"ha" not in cursor.history().replace(b"whole", b"")
    with path.open("a") as file:
        file.write("lf\n")
    assert cursor.more() == b"1700000000.0 o half\n"
    cursor.close()


def test_a_full_disk_does_not_end_the_workspace(path: Path) -> None:
    log = LogFile("/dev/full", 1 << 20)
    log.say("nobody will read this")
