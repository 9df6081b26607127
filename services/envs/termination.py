"""Hear of SIGTERM and SIGINT before the server waits for its connections.

The server ends its lifespan after the last connection is closed, and a live event stream never closes by itself: so it
has to learn of the end while it still can do something about it.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def on_termination(callback: Callable[[], None]) -> Iterator[None]:
    """Run `callback` in the event loop when a signal asks the process to end; the server's own handler runs as well."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    previous = {number: signal.getsignal(number) for number in _SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(callback)
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    # Where nobody handles a signal its default must stay, which ends the process.
    taken = [number for number in _SIGNALS if callable(previous[number])]
    for number in taken:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, previous[number])
