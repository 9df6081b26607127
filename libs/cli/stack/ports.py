"""Ports on loopback."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Collection

LOOPBACK = "127.0.0.1"

# Below Linux's range for outgoing connections (32768-60999), so that none of those can sit on the port of a process
# that is being restarted.
_FIRST, _LAST = 20_000, 32_767
_ATTEMPTS = 200


class NoFreePortError(Exception):
    """Every port that was tried is taken."""


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
        return True


class PortPicker:
    """Hands out free ports, each once; a port that was used before is kept while it is free."""

    def __init__(self, reserved: Collection[int] = ()) -> None:
        self._taken = set(reserved)

    def pick(self, preferred: int | None = None) -> int:
        """A free port. Raises NoFreePortError."""
        candidates = [preferred] if preferred else []
        candidates += [random.randint(_FIRST, _LAST) for _ in range(_ATTEMPTS)]  # noqa: S311 - no secret
        for port in candidates:
            if port not in self._taken and is_free(port):
                self._taken.add(port)
                return port
        raise NoFreePortError(f"no free port between {_FIRST} and {_LAST}")
