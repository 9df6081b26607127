"""An event loop of a few lines: descriptors and timers."""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT


class Timer:
    """Something that is due once."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def cancel(self) -> None:
        """Let it not happen."""
        self._act = _nothing

    def fire(self) -> None:
        """Let it happen."""
        self._act()


class Loop:
    """Calls back when descriptors are ready and when time has come, one thing after another."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call back with what has happened, hang-ups and errors included, for as long as it is so."""
        self._callbacks[fd] = callback
        self._poll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Look for these events from now on."""
        self._poll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Before it is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def later(self, seconds: float, act: Callable[[], None]) -> Timer:
        """Once, after so many seconds."""
        timer = Timer(act)
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._count, timer))
        return timer

    def turn(self) -> None:
        """Wait for the next thing that happens, and do it."""
        wait = -1.0
        if self._timers:
            wait = max(0.0, self._timers[0][0] - time.monotonic())
        for fd, events in self._poll.poll(wait):
            # What came before in this turn may have closed it.
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(events)
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2].fire()


def _nothing() -> None:
    pass
