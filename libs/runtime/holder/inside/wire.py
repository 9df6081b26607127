"""What the service and the holder say to each other.

Three pipes: output comes as it is, without any frames; what the holder says besides is JSON, a line each; what the
service says are frames of a kind, a length and as many bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

INPUT = b"i"
NUMBERED = b"n"
RESIZE = b"r"
HANG_UP = b"x"
BEAT = b"b"

BEAT_S = 25.0
SILENT_S = 90.0
"""Beats come every BEAT_S. Not every machine tells a process that whoever started it has gone: silence does."""

_HEADER = struct.Struct(">cI")
_NUMBER = struct.Struct(">QB")
_SIZE = struct.Struct(">HH")


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """One frame; `payload` at most 4 GiB."""
    return _HEADER.pack(kind, len(payload)) + payload


def numbered(client: str, seq: int, data: bytes) -> bytes:
    """Input with its number, which is typed only if no number as high was taken from this client before."""
    name = client.encode()
    return frame(NUMBERED, _NUMBER.pack(seq, len(name)) + name + data)


def read_numbered(payload: bytes) -> tuple[str, int, bytes]:
    """Client, number and input of a NUMBERED frame."""
    seq, length = _NUMBER.unpack_from(payload)
    data = payload[_NUMBER.size :]
    return data[:length].decode(), seq, data[length:]


def resize(cols: int, rows: int) -> bytes:
    """A new window size, each 1 to 65535."""
    return frame(RESIZE, _SIZE.pack(cols, rows))


def read_resize(payload: bytes) -> tuple[int, int]:
    """Columns and rows of a RESIZE frame."""
    cols, rows = _SIZE.unpack(payload)
    return cols, rows


class Frames:
    """Cuts a stream into its frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Kind and payload of each frame that is complete now."""
        self._held += data
        at = 0
        while len(self._held) - at >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._held, at)
            begin = at + _HEADER.size
            if len(self._held) - begin < length:
                break
            at = begin + length
            yield kind, bytes(self._held[begin:at])
        del self._held[:at]


def line(what: str, value: Any) -> bytes:
    """One line that the holder says."""
    return json.dumps({what: value}, separators=(",", ":")).encode() + b"\n"
