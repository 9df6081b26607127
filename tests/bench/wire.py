"""A WebSocket client that costs as little as it can: what measures runs on the cores that are measured."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from base64 import b64encode
from typing import Final
from urllib.parse import urlsplit

TEXT: Final = 1
BINARY: Final = 2
_CLOSE: Final = 8
_PING: Final = 9
_PONG: Final = 10
_FINAL: Final = 0x80
_MASKED: Final = 0x80
# A mask of zeros is a mask: the bytes stay as they are, and only the server has work with it.
_MASK = b"\0\0\0\0"
_READ_BYTES = 256 * 1024


class WireError(Exception):
    """The server refused the handshake, closed the connection or sent what this client does not understand."""


class RawSocket:
    """Blocking. Answers pings while it receives. Raises WireError, OSError."""

    def __init__(self, url: str, subprotocol: str | None = None, *, timeout_s: float = 20.0) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timeout_s = timeout_s
        self._buffer = bytearray()
        self._shake_hands(f"{parts.path}?{parts.query}", parts.netloc, subprotocol)

    def send(self, payload: bytes | bytearray, opcode: int = BINARY) -> None:
        """One frame of up to 64 KiB."""
        if len(payload) < 126:
            head = bytes((_FINAL | opcode, _MASKED | len(payload)))
        else:
            head = struct.pack("!BBH", _FINAL | opcode, _MASKED | 126, len(payload))
        self._socket.sendall(head + _MASK + payload)

    def receive(self, timeout_s: float = 20.0) -> tuple[int, bytearray]:
        """The opcode and the payload of the next data frame. Raises TimeoutError; nothing is lost by it."""
        if timeout_s != self._timeout_s:
            self._socket.settimeout(timeout_s)
            self._timeout_s = timeout_s
        while True:
            opcode, payload = self._frame()
            if opcode in (TEXT, BINARY):
                return opcode, payload
            if opcode == _PING:
                self.send(payload, _PONG)
            elif opcode == _CLOSE:
                raise WireError(f"closed: {payload!r}")

    def close(self) -> None:
        """Say goodbye and go."""
        with contextlib.suppress(OSError):
            self.send(struct.pack("!H", 1000), _CLOSE)
        self._socket.close()

    @property
    def has_more(self) -> bool:
        """Whether something was read that `receive` has not given yet."""
        return bool(self._buffer)

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def _shake_hands(self, target: str, host: str, subprotocol: str | None) -> None:
        key = b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {target} HTTP/1.1",
            *(f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"),
            *(f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"),
            *([f"Sec-WebSocket-Protocol: {subprotocol}"] if subprotocol else []),
        ]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._fill(len(self._buffer) + 1)
        head = bytes(self._buffer[:end])
        if not head.startswith(b"HTTP/1.1 101"):
            raise WireError(head.decode(errors="replace"))
        del self._buffer[: end + 4]

    def _frame(self) -> tuple[int, bytearray]:
        self._fill(2)
        first, size = self._buffer[0], self._buffer[1]
        start = 2
        if size == 126:
            self._fill(4)
            size, start = struct.unpack_from("!H", self._buffer, 2)[0], 4
        elif size == 127:
            self._fill(10)
            size, start = struct.unpack_from("!Q", self._buffer, 2)[0], 10
        if not first & _FINAL:
            raise WireError("a frame in parts")
        self._fill(start + size)
        payload = self._buffer[start : start + size]
        del self._buffer[: start + size]
        return first & 0x0F, payload

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise WireError("the connection ended")
            self._buffer += data
