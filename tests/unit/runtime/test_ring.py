"""The ring against a model that keeps everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.runtime.holder.inside.ring import Ring

_SLACK = 64 * 1024

# Lengths on both sides of where chunks are collected, kept, or larger than the ring.
chunk_lengths = st.one_of(st.integers(0, 40), st.integers(2040, 2060), st.integers(60_000, 66_000))


# They differ from place to place: a shifted answer cannot look right.
_NUMBERED = bytes((position * 31 + position // 251) % 256 for position in range(251 * 256)) * 13


def numbered(start: int, length: int) -> bytes:
    """So many of them."""
    return _NUMBERED[start : start + length]


@given(
    capacity=st.sampled_from([1, 100, 5_000, 70_000]),
    lengths=st.lists(chunk_lengths, max_size=12),
    reads=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 70_000)), max_size=6),
)
def test_any_writes_and_reads_give_the_bytes_that_were_written(
    capacity: int, lengths: list[int], reads: list[tuple[float, int]]
) -> None:
    ring, model = Ring(capacity), b""
    for length in lengths:
        data = numbered(len(model), length)
        ring.append(data)
        model += data
        assert ring.end == len(model)
        assert min(capacity, len(model)) <= ring.end - ring.start <= capacity + _SLACK + 2_000
        for where, max_bytes in reads:
            offset = ring.start + round((ring.end - ring.start) * where)
            assert ring.read(offset, max_bytes) == model[offset : offset + max_bytes]


@pytest.mark.parametrize("offset", [-1, 0, 99, 1_000_001])
def test_bytes_it_does_not_hold_are_an_error_and_not_others(offset: int) -> None:
    ring = Ring(1_000)
    for _ in range(1_000):
        ring.append(b"x" * 1_000)
    with pytest.raises(ValueError, match="not between"):
        ring.read(offset, 10)


def test_a_large_chunk_is_handed_out_as_it_came_in() -> None:
    ring, data = Ring(1 << 20), bytes(4096)
    ring.append(data)
    assert ring.read(0, 65536) is data


def test_single_bytes_cost_no_object_each() -> None:
    ring = Ring(1 << 20)
    for _ in range(200_000):
        ring.append(b"x")
    assert len(ring._segments) <= 4


def test_trimming_keeps_the_newest() -> None:
    ring = Ring(1 << 20)
    for number in range(100):
        ring.append(bytes([number]) * 4096)
    ring.trim(10_000)
    assert 10_000 <= ring.end - ring.start <= 10_000 + 4096
    assert ring.read(ring.end - 4096, 4096) == bytes([99]) * 4096
