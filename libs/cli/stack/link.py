"""The supervisor's end of its link to a service: `libs.common.http.supervised` is the other one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from libs.cli.stack.ports import LOOPBACK
from libs.common.http.supervised import ACCEPT, ACCEPTING, LEAVING, RELIEVED


def listener_on(port: int) -> socket.socket:
    """A socket that a service will listen on; until then connecting to it is refused. Raises OSError."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((LOOPBACK, port))
    except OSError:
        made.close()
        raise
    return made


class Link:
    """To one process. `on_leaving` is called when somebody else has asked it to end."""

    def __init__(self, listener: socket.socket, on_leaving: Callable[[], None]) -> None:
        self.accepting = asyncio.Event()
        self.is_leaving = False
        self._on_leaving = on_leaving
        self._listener = listener
        self._ours, self._theirs = socket.socketpair()
        self._private = listener_on(0)
        self.private_port: int = self._private.getsockname()[1]
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None

    @property
    def descriptors(self) -> tuple[int, int, int]:
        """What the process inherits."""
        return self._listener.fileno(), self._private.fileno(), self._theirs.fileno()

    @property
    def arguments(self) -> tuple[str, ...]:
        """How it is told which they are."""
        names = ("--listener", "--private", "--link")
        return tuple(part for name, number in zip(names, self.descriptors, strict=True) for part in (name, str(number)))

    async def open(self) -> None:
        """The process has them; listen."""
        self._private.close()
        self._theirs.close()
        reader, self._writer = await asyncio.open_unix_connection(sock=self._ours)
        self._listening = asyncio.create_task(self._listen(reader))

    def accept(self) -> None:
        """Have it serve on the address; `accepting` is set once it does."""
        self._say(ACCEPT)

    def relieve(self) -> None:
        """Somebody else serves there."""
        self._say(RELIEVED)

    def close(self) -> None:
        """The process has ended, or was never started."""
        for item in (self._ours, self._theirs, self._private):
            item.close()
        if self._listening is not None:
            self._listening.cancel()
        if self._writer is not None:
            self._writer.close()

    def _say(self, word: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(word)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while word := await reader.readline():
                if word == ACCEPTING:
                    self.accepting.set()
                elif word == LEAVING:
                    self.is_leaving = True
                    self._on_leaving()
