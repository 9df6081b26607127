"""The remote-command protocol of the API: numbered channels over one WebSocket. Pure."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

from libs.runtime.port import TerminalSize

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS, RESIZE = range(5)
# v5 only: the named channel is closed in this direction.
_CLOSE = 255

KILLED = 137
NOT_FOUND = 127


def end_of(channel: int) -> bytes:
    """The frame that half-closes a channel."""
    return bytes([_CLOSE, channel])


def data_frame(channel: int, data: bytes | memoryview) -> bytes:
    """The frame that carries data."""
    return bytes([channel]) + data


def resize_frame(size: TerminalSize) -> bytes:
    """The frame that changes the terminal's size."""
    return data_frame(RESIZE, json.dumps({"Width": size.cols, "Height": size.rows}).encode())


class Ending:
    """What channel 3 said: how the process ended, or why there was none."""

    def __init__(self, content: bytes) -> None:
        self._said = _parse(content)

    @property
    def is_exit(self) -> bool:
        """A process ran and ended."""
        return self._said.get("status") == "Success" or self._exit_code() is not None

    @property
    def code(self) -> int:
        """The exit code; what the runtime could not find or run is 127, like a shell's."""
        if self._said.get("status") == "Success":
            return 0
        code = self._exit_code()
        if code is not None:
            return code
        return NOT_FOUND if self.is_missing_program else KILLED

    @property
    def is_missing_program(self) -> bool:
        """The container has no such program."""
        words = self.message.lower()
        return "executable file not found" in words or "no such file or directory" in words

    @property
    def message(self) -> str:
        """The runtime's words."""
        return str(self._said.get("message") or "")

    def _exit_code(self) -> int | None:
        for cause in (self._said.get("details") or {}).get("causes") or []:
            if cause.get("reason") == "ExitCode" and str(cause.get("message", "")).isdigit():
                return int(cause["message"])
        return None


def _parse(content: bytes) -> dict[str, Any]:
    try:
        said = json.loads(content)
    except ValueError:
        return {"status": "Failure", "message": content.decode("utf-8", "replace").strip()}
    return said if isinstance(said, dict) else {}


class Inbox:
    """Bytes that arrived and were not asked for yet. `size` lets whoever fills it pause in time."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._ended = False
        self._arrived = asyncio.Event()
        self.size = 0

    def feed(self, data: bytes) -> None:
        """More has arrived; it is dropped once this has ended."""
        if data and not self._ended:
            self._chunks.append(data)
            self.size += len(data)
            self._arrived.set()

    def end(self, *, drop: bool = False) -> None:
        """No more comes; with `drop`, what is here is not wanted either."""
        self._ended = True
        if drop:
            self._chunks.clear()
            self.size = 0
        self._arrived.set()

    async def read(self, max_bytes: int) -> bytes:
        """At least one byte, or `b""` at the end."""
        while not self._chunks:
            if self._ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        parts, room = [], max_bytes
        while self._chunks and room:
            chunk = self._chunks.popleft()
            if len(chunk) > room:
                self._chunks.appendleft(chunk[room:])
                chunk = chunk[:room]
            parts.append(chunk)
            room -= len(chunk)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.size -= len(data)
        return data

    async def read_line(self, max_bytes: int) -> bytes:
        """Up to and including the first line break, or what there is at the end or beyond `max_bytes`."""
        line = b""
        while len(line) < max_bytes:
            data = await self.read(max_bytes - len(line))
            head, newline, rest = data.partition(b"\n")
            line += head + newline
            if rest:
                self._chunks.appendleft(rest)
                self.size += len(rest)
            if newline or not data:
                break
        return line
