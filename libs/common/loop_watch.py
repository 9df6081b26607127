"""Watches the event loop: whatever holds it up holds up every key stroke, and is seen nowhere else."""

from __future__ import annotations

import asyncio
import functools
import gc
import time
from collections import deque

import structlog

_EVERY_S = 0.25
_TOLD_ABOVE_S = 0.1
# One line for each stretch, however often it stumbles.
_TOLD_EVERY_S = 10.0
_LATELY_S = 60.0

log = structlog.get_logger(__name__)


class LoopWatch:
    """Measures four times a second how late the loop is, and logs a warning above 100 ms."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._worst: deque[tuple[float, float]] = deque()
        self._untold_s = 0.0
        self._told_at = float("-inf")

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            self._note(loop.time() - due, loop.time())

    def worst_lately_s(self) -> float:
        """The worst of the last minute, in seconds; asking for it changes nothing, so that several may."""
        self._forget(time.monotonic())
        return self._worst[0][1] if self._worst else 0.0

    def _forget(self, now: float) -> None:
        while self._worst and now - self._worst[0][0] > _LATELY_S:
            self._worst.popleft()

    def _note(self, late_s: float, now: float) -> None:
        self.worst_s = max(self.worst_s, late_s)
        self._forget(now)
        # What is both older and smaller can never be the worst again.
        while self._worst and self._worst[-1][1] <= late_s:
            self._worst.pop()
        self._worst.append((now, late_s))
        if late_s > _TOLD_ABOVE_S:
            self._untold_s = max(self._untold_s, late_s)
        if self._untold_s and now - self._told_at > _TOLD_EVERY_S:
            log.warning("event loop was held up", late_ms=round(self._untold_s * 1000))
            self._untold_s = 0.0
            self._told_at = now


@functools.cache  # tests run many services in one process, and what is frozen never goes
def keep_what_is_loaded() -> None:
    """Tell the garbage collector to leave alone what lives as long as the process. Works once.

    Looking through all modules of a service takes it a tenth of a second, again and again while a terminal is used.
    """
    gc.collect()
    gc.freeze()
