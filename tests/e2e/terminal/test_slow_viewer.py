"""Several on one shell, of whom some do not read: they miss something, are told what, and hold nobody up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from tests.e2e.terminal.reader import Reader, connected
from tests.support.phone import Phone
from tests.support.torn_terminal import KnownStream

# More than the ring and what is on the way.
_STREAM_BYTES = 40_000_000

log = logging.getLogger(__name__)


def parts(reader: Reader, start: int) -> Iterator[tuple[int, bytes]]:
    """What came without a gap in between, with its offset. `start`: that of the first byte."""
    output = bytes(reader.output)
    for lost_from, lost_to in [*reader.gaps, (reader.offset, reader.offset)]:
        part, output = output[: lost_from - start], output[lost_from - start :]
        yield start, part
        start = lost_to
    assert not output


@pytest.mark.parametrize("slow_ones", [1, 2], ids=["one", "one at each replica"])
async def test_who_does_not_read_misses_what_the_gap_names_and_nothing_else(
    alice: Phone, at_replicas: tuple[Phone, Phone], environment_id: str, slow_ones: int
) -> None:
    stream = KnownStream(21, _STREAM_BYTES)
    fast = await connected(alice.address(environment_id))
    slow = [
        await connected(f"{phone.address(environment_id)}&session={fast.session_id}&offset=0&mode=ro")
        for phone in at_replicas[:slow_ones]
    ]
    taken = [reader.offset for reader in slow]
    try:
        await fast.wire.send_binary(stream.command())
        await fast.expect(stream.end)
        # All of it, while the others have taken nothing.
        origin = fast.output.index(stream.begin) + len(stream.begin)
        assert fast.output[origin:].startswith(stream.data + stream.end)
        assert not fast.gaps
        assert [reader.offset for reader in slow] == taken
        await fast.wire.send_binary(b"echo =$((7*7))=\n")
        await asyncio.gather(*(reader.expect(b"=49=") for reader in (fast, *slow)))
        whole = bytes(fast.output)
        for reader in slow:
            log.info("missed %s of %d bytes", reader.gaps, len(whole))
            assert reader.gaps
            for offset, part in parts(reader, 0):
                # The last part may end a little behind or before what the fast one has by now.
                assert part[: len(whole) - offset] == whole[offset : offset + len(part)]
    finally:
        for reader in (fast, *slow):
            reader.wire.cut()
