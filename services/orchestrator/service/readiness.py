"""Whether the runtime can be used, for health checks and for the list of regions."""

from __future__ import annotations

import asyncio
import time

from libs.runtime.port import WorkspaceRuntime

_FRESH_FOR_S = 5.0


class RuntimeReadiness:
    """Opens the runtime at the first success and then asks it now and then whether it answers."""

    def __init__(self, runtime: WorkspaceRuntime) -> None:
        self._runtime = runtime
        self._opened = False
        self._answered_at = float("-inf")
        self._lock = asyncio.Lock()

    async def probe(self) -> None:
        """Raises what the runtime raises, e.g. RuntimeUnavailableError with a sentence that says what is missing."""
        async with self._lock:
            if not self._opened:
                await self._runtime.open()
                self._opened = True
            if time.monotonic() - self._answered_at > _FRESH_FOR_S:
                await self._runtime.list()
                self._answered_at = time.monotonic()

    async def is_ready(self, timeout_s: float = 2.0) -> bool:
        """The same as a question."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.probe()
        except Exception:
            return False
        return True
