"""Work that repeats for as long as the service runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger(__name__)


async def repeat(
    name: str, seconds: float, step: Callable[[], Awaitable[None]], *, wake: asyncio.Event | None = None
) -> None:
    """Do `step` now and then every `seconds`, or as soon as `wake` is set. What it raises is logged."""
    wake = wake or asyncio.Event()
    while True:
        wake.clear()
        try:
            await step()
        except Exception as error:
            log.warning("background work failed, will be retried", work=name, error=repr(error))
        # Not `wait_for`: in Python 3.11 it drops a cancellation that comes together with the wake-up.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await wake.wait()
