"""The last output of a session, addressed by byte offsets since the session began."""

from __future__ import annotations

from bisect import bisect_right

# Chunks from here on are kept as they came; smaller ones are collected, so that a ring full of single key strokes
# costs about its bytes and not an object for each.
_KEEP_FROM_BYTES = 2048
_SEGMENT_BYTES = 64 * 1024


class Ring:
    """Holds at least the last `capacity` bytes, and at most one segment (64 KiB, or the largest chunk) more."""

    def __init__(self, capacity: int, start: int = 0) -> None:
        self.capacity = capacity
        self._segments: list[bytes | bytearray] = []
        self._starts: list[int] = []
        self.start = start
        self.end = start

    def append(self, data: bytes) -> None:
        """Add output at the end; the oldest may go."""
        tail = self._segments[-1] if self._segments else None
        if len(data) >= _KEEP_FROM_BYTES:
            self._add(data)
        elif isinstance(tail, bytearray) and len(tail) + len(data) <= _SEGMENT_BYTES:
            tail += data
        elif data:
            self._add(bytearray(data))
        self.end += len(data)
        if self.end - self.start > self.capacity:
            self.trim(self.capacity)

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Up to `max_bytes` from `offset` on, which must lie between `start` and `end`."""
        if not self.start <= offset <= self.end:
            raise ValueError(f"offset {offset} is not between {self.start} and {self.end}")
        parts: list[bytes] = []
        index = bisect_right(self._starts, offset) - 1
        wanted = min(max_bytes, self.end - offset)
        while wanted > 0:
            segment = self._segments[index]
            begin = offset - self._starts[index]
            part = _slice(segment, begin, min(len(segment), begin + wanted))
            parts.append(part)
            offset += len(part)
            wanted -= len(part)
            index += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def trim(self, size: int) -> None:
        """Forget the oldest output down to `size` bytes, or up to one segment more."""
        count = 0
        while count + 1 < len(self._starts) and self.end - self._starts[count + 1] >= size:
            count += 1
        if count:
            del self._segments[:count]
            del self._starts[:count]
            self.start = self._starts[0]

    def skip_to(self, offset: int) -> None:
        """Go on at `offset`, at or beyond `end`; what was held is forgotten, what is between was never here."""
        self._segments.clear()
        self._starts.clear()
        self.start = self.end = offset

    def _add(self, segment: bytes | bytearray) -> None:
        self._segments.append(segment)
        self._starts.append(self.end)


def _slice(segment: bytes | bytearray, begin: int, end: int) -> bytes:
    if isinstance(segment, bytes):
        return segment[begin:end]
    return bytes(memoryview(segment)[begin:end])
