"""Ending what goes on in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_AGAIN_AFTER_S = 1.0


async def end_tasks(tasks: Iterable[asyncio.Task[Any]], *, again_after_s: float = _AGAIN_AFTER_S) -> None:
    """Cancel them, and return when all have ended, however that was.

    Who goes on is cancelled again: in Python 3.11 `asyncio.wait_for`, by which the clients of our servers wait for
    answers, drops a cancellation that comes together with the answer. A loop would then go on, and a service that waits
    for its end would never stop.
    """
    ending = list(tasks)
    going_on = set(ending)
    while going_on:
        for task in going_on:
            task.cancel()
        _, going_on = await asyncio.wait(going_on, timeout=again_after_s)
    # What they raised is not said to be lost.
    await asyncio.gather(*ending, return_exceptions=True)
