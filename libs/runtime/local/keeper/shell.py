"""A kept shell, as the service that serves it has it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
import termios
from collections.abc import Mapping
from typing import Any

from libs.runtime.holder.inside import wire
from libs.runtime.holder.shells import ShellGoneError, ShellTakenError, Taken, nobody
from libs.runtime.local.keeper.journal import Journal, Pipe
from libs.runtime.local.streams import DescriptorReader, DescriptorWriter
from libs.runtime.port import TerminalSize

# As for processes with pipes: the shell's children may hold its terminal on; what is on its way arrives within this.
_SETTLE_S = 0.3
_END_S = 4.0
_HEARD_BYTES = 16 * 1024
# A socket between processes takes all of so little, or nothing.
_AT_ONCE_BYTES = 4096


class KeptShell:
    """See `holder.shells.Shell`. Reads and writes the terminal itself; numbered input goes through the keeper.

    The keeper types numbered input and remembers its numbers in one step, which no service can that may die in between.
    """

    is_held = True

    def __init__(
        self, connection: socket.socket, answer: Mapping[str, Any], descriptors: list[int], pipe: Pipe
    ) -> None:
        """`descriptors`: the terminal, the journal, and the end of the last owner's pipe if there was one."""
        terminal, journal, *pipes_out = descriptors
        self.on_taken: Taken = nobody
        self.size = TerminalSize(answer["cols"], answer["rows"])
        self.taken: Mapping[str, int] = answer["taken"]
        self.has_forgotten: bool = answer["has_forgotten"]
        self._journal = Journal(journal)
        self._journal.claim(pipes_out[0] if pipes_out else None)
        for fd in (journal, *pipes_out):
            os.close(fd)
        self.offset = self._journal.start
        self.backlog_end = self._journal.end
        # Before anything more is read, which may take the place of the oldest.
        self._backlog = self._journal.read(self.offset, self.backlog_end - self.offset)
        self._loop = asyncio.get_running_loop()
        self._terminal = terminal
        self._reader = DescriptorReader(terminal, lambda fd, count: self._journal.take(fd, pipe, count))
        self._writer = DescriptorWriter(terminal)
        self._connection = connection
        self._keeper = DescriptorWriter(connection.fileno())
        self._heard = b""
        self._numbers = False
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._left: asyncio.Event | None = None
        self._is_taken = self._is_closed = self._is_alone = False
        self._loop.add_reader(connection.fileno(), self._hear)
        if answer["exit"] is not None:
            self._exited(answer["exit"])

    async def read(self, max_bytes: int) -> bytes:
        """See the protocol."""
        if self._is_closed:
            data = b""
        elif self._backlog:
            data, self._backlog = self._backlog[:max_bytes], self._backlog[max_bytes:]
        else:
            data = await self._reader.read(max_bytes)
        self.offset += len(data)
        if not data and self._is_taken:
            raise ShellTakenError("Another replica has taken the shell over.")
        return data

    def write_now(self, data: bytes) -> int:
        """See the protocol."""
        return 0 if self._numbers else self._writer.write_now(data)

    def write_numbered_now(self, client: str, seq: int, data: bytes) -> bool:
        """See the protocol."""
        self._numbers = True
        frame = wire.numbered(client, seq, data)
        return len(frame) <= _AT_ONCE_BYTES and self._keeper.write_now(frame) == len(frame)

    async def write(self, data: bytes) -> None:
        """See the protocol. What follows numbered input goes the same way, so that nothing overtakes it."""
        if self._numbers:
            await self._keeper.write(wire.frame(wire.INPUT, data))
        else:
            await self._writer.write(data)

    async def write_numbered(self, client: str, seq: int, data: bytes) -> None:
        """See the protocol."""
        self._numbers = True
        await self._keeper.write(wire.numbered(client, seq, data))

    async def resize(self, size: TerminalSize) -> None:
        """See the protocol."""
        self.size = size
        if not self._is_closed:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.cols, 0, 0))

    def forget(self, before: int) -> None:
        """See the protocol."""
        if not self._is_closed and before - self._journal.start > 0:
            self._journal.trim(self._journal.end - before)

    async def wait(self) -> int:
        """See the protocol."""
        return await asyncio.shield(self._exit)

    async def release(self) -> None:
        """See the protocol."""
        self._close()

    async def close(self) -> None:
        """See the protocol."""
        if self._is_closed:
            return
        self._left = asyncio.Event()
        self._close_terminal()
        with contextlib.suppress(BrokenPipeError, TimeoutError):
            async with asyncio.timeout(_END_S):
                await self._keeper.write(wire.frame(wire.HANG_UP))
                if not self._is_alone:
                    # The keeper lets go when the last process is gone.
                    await self._left.wait()
        self._close()

    def _hear(self) -> None:
        try:
            data = self._connection.recv(_HEARD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._be_alone()
            return
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "ack" in said:
                self.on_taken(*said["ack"])
            elif "exit" in said:
                self._exited(said["exit"])
            elif "displaced" in said:
                self._is_taken = True
                self._close()

    def _be_alone(self) -> None:
        """The keeper is gone, with it whoever would know how the shell ends."""
        self._loop.remove_reader(self._connection.fileno())
        self._is_alone = True
        if self._left is not None:
            self._left.set()
        if not self._exit.done() and not self._is_closed:
            self._exit.set_exception(ShellGoneError("The keeper of shells has ended."))
            # Seen or not: whoever waits gets it.
            self._exit.exception()
            self._settle()

    def _exited(self, code: int) -> None:
        if not self._exit.done():
            self._exit.set_result(code)
            self._loop.call_later(_SETTLE_S, self._settle)

    def _settle(self) -> None:
        if not self._is_closed and not self._reader.end_if_idle():
            self._loop.call_later(_SETTLE_S, self._settle)

    def _close_terminal(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._reader.end()
            self._writer.close()
            os.close(self._terminal)
            self._journal.close()

    def _close(self) -> None:
        self._close_terminal()
        if self._connection.fileno() >= 0:
            self._keeper.close()
            self._loop.remove_reader(self._connection.fileno())
            self._connection.close()
