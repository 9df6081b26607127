"""Readers and writers on real pipes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from libs.runtime.local.streams import HIGH_WATER_BYTES, DescriptorReader, DescriptorWriter
from tests.support.app import eventually


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    for fd in ends:
        os.set_blocking(fd, False)
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            continue


async def test_reading_ahead_is_bounded_and_goes_on(pipe: tuple[int, int]) -> None:
    reader, writer = DescriptorReader(pipe[0]), DescriptorWriter(pipe[1])
    total = HIGH_WATER_BYTES * 4
    writing = asyncio.ensure_future(writer.write(bytes(total)))

    async def is_full() -> bool:
        return reader.buffered_bytes >= HIGH_WATER_BYTES

    await eventually(is_full)
    for _ in range(20):  # in which it would read on
        await asyncio.sleep(0)
    assert not writing.done()
    assert reader.buffered_bytes < HIGH_WATER_BYTES + 65536
    got = 0
    while got < total:
        got += len(await reader.read(10_000))
    await writing
    assert reader.buffered_bytes == 0
    reader.end()


async def test_the_end_comes_after_the_data_and_stays(pipe: tuple[int, int]) -> None:
    reader = DescriptorReader(pipe[0])
    os.write(pipe[1], b"last")
    os.close(pipe[1])
    assert [await reader.read(3), await reader.read(3), await reader.read(3), await reader.read(3)] == [
        b"las",
        b"t",
        b"",
        b"",
    ]


async def test_chunks_are_joined_up_to_the_maximum(pipe: tuple[int, int]) -> None:
    reader = DescriptorReader(pipe[0])
    for part in (b"ab", b"cd", b"ef"):
        os.write(pipe[1], part)
        await asyncio.sleep(0.01)
    assert await reader.read(5) == b"abcd"
    assert await reader.read(5) == b"ef"
    reader.end()


async def test_writes_keep_their_order_when_the_pipe_is_full(pipe: tuple[int, int]) -> None:
    reader, writer = DescriptorReader(pipe[0]), DescriptorWriter(pipe[1])
    writes = [asyncio.ensure_future(writer.write(bytes([number]) * 100_000)) for number in range(10)]
    data = b""
    while len(data) < 1_000_000:
        data += await reader.read(65536)
    await asyncio.gather(*writes)
    assert data == b"".join(bytes([number]) * 100_000 for number in range(10))
    reader.end()
    writer.close()


async def test_closing_wakes_a_waiting_writer(pipe: tuple[int, int]) -> None:
    writer = DescriptorWriter(pipe[1])
    writing = asyncio.ensure_future(writer.write(bytes(1_000_000)))
    await asyncio.sleep(0.05)
    writer.close()
    with pytest.raises(BrokenPipeError):
        await writing
    with pytest.raises(BrokenPipeError):
        await writer.write(b"x")


async def test_a_reader_that_left_breaks_the_pipe(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    with pytest.raises(BrokenPipeError):
        await DescriptorWriter(pipe[1]).write(b"x")


async def test_ending_when_idle(pipe: tuple[int, int]) -> None:
    reader = DescriptorReader(pipe[0])
    os.write(pipe[1], b"more")
    assert not reader.end_if_idle()
    assert await reader.read(10) == b"more"
    assert reader.end_if_idle()
    assert await reader.read(10) == b""
