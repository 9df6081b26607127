"""Talking with a script that runs in a workspace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.runtime.port import DriverError, ExecStream
from services.terminal.workspace.errors import CutShortError, refusal
from services.terminal.workspace.scripts import Script

# Of standard error the end is kept.
_ERROR_BYTES = 4096
_LONGEST_LINE = 4096
_PIECE_BYTES = 256 * 1024
# The loop itself keeps only weak references to tasks.
_endings: set[asyncio.Task[None]] = set()


class Conversation:
    """The script says lines, is told what to do, and may put out content at the end. Make it with `talking`."""

    def __init__(self, stream: ExecStream, script: Script) -> None:
        self._stream = stream
        self._script = script
        self._mark = f"{script.mark}|".encode()
        self._rest = b""
        self._errors = b""
        self._listening = asyncio.create_task(self._listen())

    async def begin(self) -> None:
        """Hand the script over."""
        await self.tell(self._script.head)

    async def tell(self, data: bytes) -> None:
        """Write to its input, waiting while it takes nothing. When it has ended, what it said last says why."""
        await self._stream.write(data)

    async def end_input(self) -> None:
        """It is told nothing more."""
        await self._stream.write_eof()

    async def seal(self) -> None:
        """What was told is complete."""
        await self.tell(self._script.seal)
        await self.end_input()

    async def hear(self, seconds: float) -> str:
        """The next line, without its mark. Raises what the script refuses with, CutShortError, TimeoutError."""
        async with asyncio.timeout(seconds):
            while b"\n" not in self._rest:
                data = await self._stream.read(_LONGEST_LINE)
                if not data or len(self._rest) > _LONGEST_LINE:
                    raise CutShortError
                self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        if not line.startswith(self._mark):
            raise CutShortError
        said = line.removeprefix(self._mark).decode("utf-8", "replace")
        kind, _, word = said.partition("|")
        if kind == "refused":
            raise refusal(word)
        return said

    async def content(self) -> AsyncIterator[bytes]:
        """All that follows."""
        if self._rest:
            first, self._rest = self._rest, b""
            yield first
        while data := await self._stream.read(_PIECE_BYTES):
            yield data

    async def exit_code(self, seconds: float) -> int:
        """Once it has ended. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            return await self._stream.wait()

    async def last_errors(self, seconds: float) -> bytes:
        """The end of what it wrote to standard error, once that has ended. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            await asyncio.shield(self._listening)
        return self._errors

    async def _listen(self) -> None:
        while data := await self._stream.read_stderr():
            self._errors = (self._errors + data)[-_ERROR_BYTES:]

    async def hang_up(self, patience_seconds: float) -> None:
        """End it. First it is told that nothing more comes, and given a moment to tidy up."""
        try:
            async with asyncio.timeout(patience_seconds):
                await self._stream.write_eof()
                await self._stream.wait()
        except (TimeoutError, BrokenPipeError, DriverError):
            pass
        finally:
            self._listening.cancel()
            await self._stream.close()


@asynccontextmanager
async def talking(stream: ExecStream, script: Script, *, patience_seconds: float = 0.0) -> AsyncIterator[Conversation]:
    """A conversation that is ended whatever happens. `patience_seconds`: what the script may take to tidy up."""
    conversation = Conversation(stream, script)
    try:
        await conversation.begin()
        yield conversation
    finally:
        # Also when we are cancelled: nobody else would ever end it.
        ending = asyncio.create_task(conversation.hang_up(patience_seconds))
        _endings.add(ending)
        ending.add_done_callback(_endings.discard)
        await asyncio.shield(ending)
