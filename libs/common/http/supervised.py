"""The service's end of its link to a supervisor that can start a successor on the same address.

The supervisor holds the listening socket and gives it to each process it starts, so the address is never without
somebody: connections that come between two processes wait in the kernel. Words on the link, one a line:
to the process `accept` (begin to serve on the address) and `relieved` (somebody else does now); from it `accepting` and
`leaving` (asked to end by somebody else: please start a successor).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

ACCEPT, RELIEVED = b"accept\n", b"relieved\n"
ACCEPTING, LEAVING = b"accepting\n", b"leaving\n"

# A successor takes seconds to start; without one, whoever connects waits for the supervisor's next try.
_RELIEF_S = 10.0


class Supervised:
    """`private` is a listening socket of this process alone: the supervisor asks there whether it is ready."""

    def __init__(self, listener: socket.socket, private: socket.socket, link: socket.socket) -> None:
        self.private = private
        self._listener = listener
        self._link = link
        self._writer: asyncio.StreamWriter | None = None
        self._relieved = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    async def begin(self, accept: Callable[[socket.socket], Awaitable[None]], abandoned: Callable[[], None]) -> None:
        """Listen to the supervisor. `accept` is called when it says so, `abandoned` when it is gone."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._link)
        self._listening = asyncio.create_task(self._listen(reader, accept, abandoned))

    async def relieved(self) -> None:
        """Tell the supervisor, and wait until a successor serves; not for ever."""
        if not self._relieved.is_set():
            self._say(LEAVING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RELIEF_S):
                await self._relieved.wait()

    async def _listen(
        self,
        reader: asyncio.StreamReader,
        accept: Callable[[socket.socket], Awaitable[None]],
        abandoned: Callable[[], None],
    ) -> None:
        while word := await reader.readline():
            if word == ACCEPT:
                await accept(self._listener)
                self._say(ACCEPTING)
            elif word == RELIEVED:
                self._relieved.set()
        self._relieved.set()
        abandoned()

    def _say(self, word: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(word)
