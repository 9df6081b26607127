"""Saying goodbye before the HTTP server does.

On SIGTERM uvicorn closes every WebSocket by itself, with 1012, before the application hears of it in its lifespan. Our
clients are promised 1001 and the shells' ends in the story of their environments, so the signal is taken first, the
sessions are drained, and then it goes to the handler that uvicorn has installed.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_Handler = Callable[[int, FrameType | None], object]


@contextmanager
def draining_before_server_stops(drain: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """For the length of the block a first signal runs `drain`, which must end by itself, and only then takes effect.

    A second one takes effect at once. Does nothing outside the main thread, where no signals arrive.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    servers: dict[int, _Handler] = {}
    draining: list[asyncio.Task[None]] = []

    async def drain_then_stop(number: int) -> None:
        try:
            await drain()
        finally:
            servers[number](number, None)

    def on_signal(number: int, frame: FrameType | None) -> None:
        if draining:
            servers[number](number, frame)
        else:
            draining.append(loop.create_task(drain_then_stop(number)))

    def hand_over(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(on_signal, number, frame)

    for number in _SIGNALS:
        installed = signal.getsignal(number)
        if callable(installed) and installed is not signal.default_int_handler:
            servers[number] = installed
            signal.signal(number, hand_over)
    try:
        yield
    finally:
        for taken, installed in servers.items():
            signal.signal(taken, installed)
