"""The size of a shell's window: that of the writer who was active last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from libs.runtime.port import TerminalSize


class Window:
    """Whoever types or changes the size looks at the screen; the others see it in that one's size.

    When that writer leaves, the one who was active before counts. Writers without a size of their own change nothing.
    """

    def __init__(self, size: TerminalSize, resize: Callable[[TerminalSize], Awaitable[None]]) -> None:
        self.size = size
        self._resize = resize
        self._applied = size
        self._fitting = asyncio.Lock()
        # By last activity, the newest at the end.
        self._sizes: dict[object, TerminalSize] = {}
        self._last: object = None

    async def active(self, writer: object, size: TerminalSize | None = None) -> None:
        """This writer does something; `size`: in a window of that size from now on."""
        if size is None and writer is self._last:
            return
        self._last = writer
        own = self._sizes.pop(writer, None)
        if size is not None or own is not None:
            self._sizes[writer] = size or own or self.size
        await self.fit()

    def left(self, writer: object) -> bool:
        """This writer is gone; whether `fit` has something to do."""
        self._sizes.pop(writer, None)
        if writer is self._last:
            self._last = None
        return bool(self._sizes) and next(reversed(self._sizes.values())) != self._applied

    async def fit(self) -> None:
        """Give the shell the size that counts now."""
        async with self._fitting:
            while self._sizes and (size := next(reversed(self._sizes.values()))) != self._applied:
                self.size = size
                await self._resize(size)
                self._applied = size
