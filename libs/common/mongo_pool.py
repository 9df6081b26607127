"""How many connections to MongoDB there are, and how many are in use, as the driver tells it."""

from __future__ import annotations

import threading
from typing import Any

from pymongo.monitoring import ConnectionPoolListener


class PoolWatch(ConnectionPoolListener):
    """Counts over all servers of one client. Told from the driver's threads, read from anywhere."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.total = 0
        self.in_use = 0
        self.size_max = 0

    @property
    def idle(self) -> int:
        """Connections that wait for work."""
        return max(self.total - self.in_use, 0)

    def _count(self, total: int, in_use: int) -> None:
        with self._lock:
            self.total += total
            self.in_use += in_use

    def pool_created(self, event: Any) -> None:
        """With its options, those that are not the default."""
        self.size_max = event.options.get("maxPoolSize", 100)

    def connection_created(self, _event: Any) -> None:
        """One more."""
        self._count(1, 0)

    def connection_closed(self, _event: Any) -> None:
        """One less; it is not checked in before when it broke in use, but always before this."""
        self._count(-1, 0)

    def connection_checked_out(self, _event: Any) -> None:
        """In use."""
        self._count(0, 1)

    def connection_checked_in(self, _event: Any) -> None:
        """Idle again."""
        self._count(0, -1)

    def pool_ready(self, _event: Any) -> None:
        """Nothing to count."""

    def pool_cleared(self, _event: Any) -> None:
        """Nothing to count: each connection is told of."""

    def pool_closed(self, _event: Any) -> None:
        """Nothing to count: each connection is told of."""

    def connection_ready(self, _event: Any) -> None:
        """Nothing to count."""

    def connection_check_out_started(self, _event: Any) -> None:
        """Nothing to count."""

    def connection_check_out_failed(self, _event: Any) -> None:
        """Nothing to count."""
