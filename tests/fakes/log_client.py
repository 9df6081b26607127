"""Who looks at a log, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from services.terminal.protocol import Frame

_TIMEOUT_S = 60.0


class LogClient:
    """A channel that takes frames while `takes` is set, and keeps what it was told."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.code: int | None = None
        self._told = asyncio.Event()

    def send_now(self, frame: Frame) -> bool:
        return False

    async def send(self, frame: Frame) -> None:
        """See `Channel`."""
        await self.takes.wait()
        self.frames.append(json.loads(frame))
        self._told.set()
        # As a socket does: others get their turn.
        await asyncio.sleep(0)

    async def close(self, socket_code: int, reason: str) -> None:
        """See `Channel`."""
        self.code = socket_code
        self._told.set()

    @property
    def lines(self) -> list[str]:
        """The messages of the lines."""
        return [frame["message"] for frame in self.frames if frame["type"] == "log"]

    @property
    def offset(self) -> str:
        """What it would resume with."""
        seen = [frame for frame in self.frames if frame["type"] in {"log", "gap"}]
        return str(seen[-1].get("offset") or seen[-1]["to"])

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until it has been told enough."""
        async with asyncio.timeout(_TIMEOUT_S):
            while not done():
                self._told.clear()
                await self._told.wait()
