"""How fast one connection may send messages."""

from __future__ import annotations

import time
from collections.abc import Callable

_BURST_SECONDS = 2.0


class MessageRate:
    """A token bucket: `per_second` on average, twice that at once. One per connection, so nothing is shared."""

    def __init__(self, per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._capacity = per_second * _BURST_SECONDS
        self._tokens = self._capacity
        self._clock = clock
        self._counted_at = clock()

    def allows_one(self) -> bool:
        """Count a message; False when it is too many."""
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._counted_at) * self._per_second)
        self._counted_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
