"""A terminal as a person sees it: an emulator between a WebSocket and whoever looks at the screen."""

from __future__ import annotations

import asyncio
import codecs
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pyte
from websockets.asyncio.client import ClientConnection

from tests.support.phone import Phone

_TIMEOUT_S = 60.0
# Questions to the terminal, which pyte would show as text.
_DEVICE_CONTROL = re.compile(r"\x1bP.*?\x1b\\", re.DOTALL)


class _Screen(pyte.Screen):
    """pyte's, which knows no private kind of colours."""

    def select_graphic_rendition(self, *attributes: int, private: bool = False) -> None:
        if not private:
            super().select_graphic_rendition(*attributes)


class ScreenTerminal:
    """One connection with a screen."""

    def __init__(self, socket: ClientConnection, *, binary: bool, shown: bool, cols: int, rows: int) -> None:
        self.binary = binary
        self.session_id = ""
        self.raw = bytearray()
        self.output = ""
        self.errors: list[dict[str, Any]] = []
        self._shown = shown
        self._socket = socket
        self._screen = _Screen(cols, rows)
        self._held = ""
        self._stream = pyte.Stream(self._screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        return [line.rstrip() for line in self._screen.display]

    def shows(self, pattern: str) -> bool:
        """Whether a line of the screen matches."""
        return any(re.search(pattern, line) for line in self.lines)

    async def type(self, data: str) -> None:
        """Keys, or a paste; one message."""
        await self._socket.send(self._message(data))

    def size(self, data: str) -> int:
        """Of the message that types it, in bytes."""
        return len(self._message(data))

    def _message(self, data: str) -> str | bytes:
        return data.encode() if self.binary else json.dumps({"type": "input", "data": data})

    async def resize(self, cols: int, rows: int) -> None:
        """The window is another size now."""
        self._screen.resize(rows, cols)
        await self._socket.send(json.dumps({"type": "resize", "cols": cols, "rows": rows}))

    async def until(self, pattern: str) -> None:
        """Until a line of the screen matches."""
        await self.until_so(lambda: self.shows(pattern), pattern)

    async def until_so(self, done: Callable[[], bool], what: str) -> None:
        """Until `done`. Raises AssertionError with the screen."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                while not done():
                    self._take(await self._socket.recv())
        except TimeoutError:
            raise AssertionError(f"never {what}:\n" + "\n".join(self.lines)) from None

    def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self.raw += message
            self._show(self._decoder.decode(message))
            return
        frame = json.loads(message)
        if frame["type"] == "output":
            self._show(frame["data"])
        elif frame["type"] == "ready":
            self.session_id = frame["session_id"]
        else:
            self.errors.append(frame)

    def _show(self, text: str) -> None:
        self.output += text
        if not self._shown:
            return
        text = _DEVICE_CONTROL.sub("", self._held + text)
        begun = text.find("\x1bP")
        if begun < 0:
            begun = len(text) - text.endswith("\x1b")
        self._held = text[begun:]
        self._stream.feed(text[:begun])


@asynccontextmanager
async def screen(
    phone: Phone,
    environment_id: str,
    *,
    binary: bool,
    shown: bool = True,
    cols: int = 80,
    rows: int = 24,
    query: str = "",
) -> AsyncIterator[ScreenTerminal]:
    """A new shell, or the one that `query` names; nothing may have gone wrong in it at the end.

    `shown`: whether the output goes to the screen, which makes no sense of noise.
    """
    query = f"&cols={cols}&rows={rows}{query}"
    async with phone.socket(environment_id, query, binary=binary) as socket:
        terminal = ScreenTerminal(socket, binary=binary, shown=shown, cols=cols, rows=rows)
        yield terminal
        assert not terminal.errors, terminal.errors
