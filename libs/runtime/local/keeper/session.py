"""One shell that is kept."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from libs.runtime.holder.inside import wire
from libs.runtime.holder.inside.loop import READABLE, WRITABLE, Loop, Timer
from libs.runtime.holder.inside.numbers import Numbers
from libs.runtime.local.keeper import messages
from libs.runtime.local.keeper.starting import StartedShell

_READ_BYTES = 64 * 1024
# An owner that does not let go within this is not going to read before it has looked at the journal.
_LET_GO_S = 1.0
# Only the last of its output and its exit code are left to be told.
_KEEP_EXITED_S = 60.0


class KeptSession:
    """Its terminal is read by whoever is attached; the newest one counts. Left alone for `keep_s` it ends."""

    def __init__(
        self,
        loop: Loop,
        session_id: str,
        shell: StartedShell,
        journal: int,
        *,
        keep_s: float,
        on_left: Callable[[KeptSession], None],
    ) -> None:
        self.id = session_id
        self.shell = shell
        self.exit_code: int | None = None
        self._loop = loop
        self._journal = journal
        self._keep_s = keep_s
        self._on_left = on_left
        self._connection: socket.socket | None = None
        self._pipe_out = -1
        self._frames = wire.Frames()
        self._said = bytearray()
        self._is_saying = False
        self._next: tuple[socket.socket, int] | None = None
        self._keeping: Timer | None = None
        self._input = bytearray()
        self._numbers = Numbers()
        self._is_ending = False

    @property
    def is_ending(self) -> bool:
        """Nobody can be attached to it any more."""
        return self._is_ending

    def attach(self, connection: socket.socket, pipe_out: int) -> None:
        """Serve this one, once the one before has let go or had time to."""
        if self._next is not None:
            self._drop_next()
        self._next = (connection, pipe_out)
        if self._connection is None:
            self._welcome()
        else:
            self._say("displaced", True)
            waiting = self._next
            self._loop.later(_LET_GO_S, lambda: self._let_go() if self._next is waiting else None)

    def exited(self, code: int) -> None:
        """The shell's process has ended."""
        self.exit_code = code
        self._say("exit", code)
        if self._connection is None and not self._is_ending:
            self._keep()

    def end(self) -> None:
        """Let go of all; the terminal hangs up."""
        if self._is_ending:
            return
        self._is_ending = True
        if self._keeping is not None:
            self._keeping.cancel()
        self._loop.forget(self.shell.terminal)
        os.close(self.shell.terminal)
        self._on_left(self)

    def gone(self) -> None:
        """All its processes are."""
        self._drop_next()
        self._let_go()
        os.close(self._journal)
        self._close_pipe()

    def _welcome(self) -> None:
        assert self._next is not None
        (self._connection, pipe_out), self._next = self._next, None
        if self._keeping is not None:
            self._keeping.cancel()
        rows, cols, _, _ = struct.unpack(
            "HHHH", fcntl.ioctl(self.shell.terminal, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        )
        hello: dict[str, Any] = {"cols": cols, "rows": rows, "taken": self._numbers.taken}
        hello |= {"has_forgotten": self._numbers.has_forgotten, "exit": self.exit_code}
        descriptors = [self.shell.terminal, self._journal]
        if self._pipe_out >= 0:
            descriptors.append(self._pipe_out)
        with suppress(OSError):
            messages.send(self._connection, hello, descriptors)
        self._close_pipe()
        self._pipe_out = pipe_out
        self._frames = wire.Frames()
        self._said.clear()
        self._is_saying = False
        self._connection.setblocking(False)
        self._loop.watch(self._connection.fileno(), READABLE, self._on_message)

    def _let_go(self) -> None:
        if self._connection is not None:
            self._loop.forget(self._connection.fileno())
            self._connection.close()
            self._connection = None
        if self._is_ending:
            return
        if self._next is not None:
            self._welcome()
        else:
            self._keep()

    def _keep(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
        seconds = self._keep_s if self.exit_code is None else min(self._keep_s, _KEEP_EXITED_S)
        self._keeping = self._loop.later(seconds, self.end)

    def _drop_next(self) -> None:
        if self._next is not None:
            connection, pipe_out = self._next
            self._next = None
            connection.close()
            os.close(pipe_out)

    def _close_pipe(self) -> None:
        if self._pipe_out >= 0:
            os.close(self._pipe_out)
            self._pipe_out = -1

    def _say(self, what: str, value: Any) -> None:
        if self._connection is not None:
            self._said += wire.line(what, value)
            self._flush(self._connection)

    def _flush(self, connection: socket.socket) -> None:
        try:
            del self._said[: connection.send(self._said)]
        except BlockingIOError:
            pass
        except OSError:
            # Its end is seen by reading.
            self._said.clear()
        if self._is_saying != bool(self._said):
            self._is_saying = not self._is_saying
            self._loop.change(connection.fileno(), READABLE | (WRITABLE if self._is_saying else 0))

    def _on_message(self, events: int) -> None:
        assert self._connection is not None
        if events & WRITABLE:
            self._flush(self._connection)
        if not events & ~WRITABLE:
            return
        try:
            data = self._connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._let_go()
            return
        for kind, payload in self._frames.feed(data):
            if kind == wire.INPUT:
                self._type(payload)
            elif kind == wire.NUMBERED:
                self._take(*wire.read_numbered(payload))
            elif kind == wire.HANG_UP:
                self.end()

    def _take(self, client: str, seq: int, data: bytes) -> None:
        if self._numbers.take(client, seq):
            self._type(data)
        self._say("ack", [client, self._numbers.taken[client]])

    def _type(self, data: bytes) -> None:
        if self._is_ending:
            return
        was_waiting = bool(self._input)
        self._input += data
        self._write(0)
        if self._input and not was_waiting:
            self._loop.watch(self.shell.terminal, WRITABLE, self._write)

    def _write(self, _: int) -> None:
        try:
            while self._input:
                del self._input[: os.write(self.shell.terminal, self._input[:_READ_BYTES])]
        except BlockingIOError:
            return
        except OSError:
            self._input.clear()
        self._loop.forget(self.shell.terminal)
