"""What a service does between being asked to end and ending."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

Announcement = Callable[[], None]
# Gets the seconds that work at hand may still take; sees to its own end.
Goodbye = Callable[[float], Awaitable[None]]

log = structlog.get_logger(__name__)


class Departure:
    """Whoever has something to do then says so before; the server (`libs.common.http.server`) goes through it."""

    def __init__(self) -> None:
        self._announcements: list[Announcement] = []
        self._goodbyes: list[Goodbye] = []

    def announce_by(self, announcement: Announcement) -> None:
        """Called at once when the service is asked to end, while it still serves."""
        self._announcements.append(announcement)

    def say_by(self, goodbye: Goodbye) -> None:
        """Called when nobody can connect any more, and before the server closes what is still open."""
        self._goodbyes.append(goodbye)

    def announce(self) -> None:
        """From now on the service says that it goes."""
        for announcement in self._announcements:
            announcement()

    async def say_goodbye(self, patience_s: float) -> None:
        """To all at once; one that fails keeps the others from nothing."""
        results = await asyncio.gather(*(goodbye(patience_s) for goodbye in self._goodbyes), return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                log.warning("a goodbye failed", error=repr(result))
