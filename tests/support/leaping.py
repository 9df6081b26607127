"""Time for tests that goes by at once: what waits for a second is woken as soon as nobody has anything else to do.

So nothing that a busy machine does to the order of things can be seen, and no test waits.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

_Given = ParamSpec("_Given")


class _Leaps(selectors.DefaultSelector):
    """Takes the time that it is to wait for as gone by."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if timeout is None else 0)
        if not ready:
            self.now += timeout or 0
        return ready


class _LeapingLoop(asyncio.SelectorEventLoop):
    """Whose clock is that of its selector."""

    def __init__(self) -> None:
        self._leaps = _Leaps()
        super().__init__(self._leaps)

    def time(self) -> float:
        return self._leaps.now


def leaping(test: Callable[_Given, Coroutine[Any, Any, None]]) -> Callable[_Given, None]:
    """The test, in an event loop of its own in which time leaps. For what knows the time from the loop alone."""

    @functools.wraps(test)
    def run(*args: _Given.args, **kwargs: _Given.kwargs) -> None:
        with asyncio.Runner(loop_factory=_LeapingLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
