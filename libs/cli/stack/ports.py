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


def claimed(port: int) -> socket.socket | None:
    """While this is open nobody else on this machine has a claim on the port; None when somebody has one.

    Seconds pass between the choice of a port and the first who listens there, and another stack that starts meanwhile
    must not choose the same. The name is one of Linux's abstract ones, so nothing is left behind.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0devpocket-port-{port}")
    except OSError:
        claim.close()
        return None
    return claim


class PortPicker:
    """Hands out free ports, each once, and until `close` to nobody else; a port that was used before is kept while it
    is free."""

    def __init__(self, reserved: Collection[int] = ()) -> None:
        self._taken = set(reserved)
        self._claims: list[socket.socket] = []

    def pick(self, preferred: int | None = None) -> int:
        """A free port. Raises NoFreePortError."""
        candidates = [preferred] if preferred else []
        candidates += [random.randint(_FIRST, _LAST) for _ in range(_ATTEMPTS)]  # noqa: S311 - no secret
        for port in candidates:
            if port not in self._taken and self._claim(port):
                self._taken.add(port)
                return port
        raise NoFreePortError(f"no free port between {_FIRST} and {_LAST}")

    def close(self) -> None:
        """Others may have them."""
        for claim in self._claims:
            claim.close()

    def _claim(self, port: int) -> bool:
        claim = claimed(port)
        if claim is None:
            return False
        self._claims.append(claim)
        return is_free(port)
