"""What a service and the keeper say to each other over a socket: first a request and its answer, with descriptors.

Then frames to the keeper and lines back, as `libs.runtime.holder.inside.wire` has them.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_LENGTH = struct.Struct(">I")
_MESSAGE_BYTES = 64 * 1024
_DESCRIPTORS = 3
_INT_BYTES = 4


def send(connection: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
    """A message with at most three descriptors. Raises OSError."""
    text = json.dumps(message).encode()
    socket.send_fds(connection, [_LENGTH.pack(len(text)) + text], descriptors)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The other side of `send`; waits as long as the socket does. Raises OSError, ValueError."""
    descriptors: list[int] = []
    data = b""
    while len(data) < _LENGTH.size or len(data) < _LENGTH.size + _LENGTH.unpack_from(data)[0]:
        # Not a byte more than the message has: what follows belongs to others.
        wanted = _LENGTH.size - len(data)
        if wanted <= 0:
            wanted = _LENGTH.size + _LENGTH.unpack_from(data)[0] - len(data)
        space = socket.CMSG_SPACE(_DESCRIPTORS * _INT_BYTES)
        part, ancillary, _, _ = connection.recvmsg(min(wanted, _MESSAGE_BYTES), space, socket.MSG_CMSG_CLOEXEC)
        for _level, _kind, sent in ancillary:
            descriptors += struct.unpack(f"{len(sent) // _INT_BYTES}i", sent)
        if not part:
            raise ValueError("the message has no end")
        data += part
    message: dict[str, Any] = json.loads(data[_LENGTH.size :])
    return message, descriptors
