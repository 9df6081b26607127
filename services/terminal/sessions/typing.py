"""What was typed and the shell has not taken yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from enum import Enum, auto

import structlog

from libs.runtime.holder.shells import Shell
from services.terminal.sessions.ledger import InputLedger, Place

_UNNUMBERED = ""

log = structlog.get_logger(__name__)

_Input = tuple[str, int, bytes]


class Typed(Enum):
    """What became of input. REPEATED: it was taken before, and is not typed again."""

    TAKEN = auto()
    REPEATED = auto()
    OVERFLOW = auto()
    GAP = auto()


class InputQueue:
    """At most `limit_bytes`, or one message however large. `on_confirmed` is called for numbered input."""

    def __init__(
        self,
        shell: Shell,
        limit_bytes: int,
        is_connected: Callable[[str], bool],
        on_confirmed: Callable[[str, int], None],
    ) -> None:
        self._shell = shell
        self._limit_bytes = limit_bytes
        self._ledger = InputLedger(is_connected, shell.taken, has_forgotten=shell.has_forgotten)
        self._on_confirmed = on_confirmed
        self._waiting: list[_Input] = []
        self._bytes = 0
        self.taken_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        shell.on_taken = self._confirm

    def type(self, data: bytes) -> bool:
        """Without a number; False when it is dropped because the shell has not taken what came before."""
        self.taken_bytes += len(data)
        if self._is_empty:
            data = data[self._written_now(data) :]
        if not data or self._put(_UNNUMBERED, 0, data):
            return True
        self.taken_bytes -= len(data)
        return False

    def type_numbered(self, client: str, seq: int, data: bytes) -> tuple[Typed, int]:
        """Input that is typed only if it is the next of this client's; and the highest number confirmed by now."""
        place = self._ledger.place(client, seq)
        typed = {Place.NEXT: Typed.OVERFLOW, Place.TAKEN: Typed.REPEATED, Place.GAP: Typed.GAP}[place]
        if place is Place.NEXT and (self._is_written_now(client, seq, data) or self._put(client, seq, data)):
            self._ledger.take(client, seq)
            self.taken_bytes += len(data)
            typed = Typed.TAKEN
        return typed, self._ledger.confirmed(client)

    def confirmed(self, client: str) -> int:
        """The highest number of this client's input that the shell has for sure, as far as it is remembered."""
        return self._ledger.confirmed(client)

    def told(self, client: str) -> int | None:
        """The same; None when there may have been more."""
        return None if self._ledger.may_have_forgotten(client) else self._ledger.confirmed(client)

    async def close(self) -> None:
        """Forget what the shell has not taken."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])

    @property
    def _is_empty(self) -> bool:
        return not (self._waiting or self._bytes)

    def _written_now(self, data: bytes) -> int:
        """A key stroke wakes nobody while the shell takes it."""
        try:
            return self._shell.write_now(data)
        except BrokenPipeError:
            return 0

    def _is_written_now(self, client: str, seq: int, data: bytes) -> bool:
        try:
            return self._is_empty and self._shell.write_numbered_now(client, seq, data)
        except BrokenPipeError:
            return False

    async def _write(self) -> None:
        """What the shell did not take at once, until it has taken all or has ended."""
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            try:
                for client, seq, data in _joined(waiting):
                    if client == _UNNUMBERED:
                        await self._shell.write(data)
                    else:
                        await self._shell.write_numbered(client, seq, data)
                    self._bytes -= len(data)
            except Exception as error:
                # The shell's end is told by reading; what is typed after it has nowhere to go.
                log.debug("input not taken", error=repr(error))
                return
        self._writing = None

    def _put(self, client: str, seq: int, data: bytes) -> bool:
        if data and self._bytes and self._bytes + len(data) > self._limit_bytes:
            return False
        self._waiting.append((client, seq, data))
        self._bytes += len(data)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return True

    def _confirm(self, client: str, seq: int) -> None:
        self._ledger.confirm(client, seq)
        self._on_confirmed(client, seq)


def _joined(waiting: list[_Input]) -> Iterator[_Input]:
    """Input without numbers goes in one piece as far as it can."""
    parts: list[bytes] = []
    for client, seq, data in waiting:
        if client == _UNNUMBERED:
            parts.append(data)
            continue
        if parts:
            yield _UNNUMBERED, 0, b"".join(parts)
            parts = []
        yield client, seq, data
    if parts:
        yield _UNNUMBERED, 0, parts[0] if len(parts) == 1 else b"".join(parts)
