"""The service's end of a shell: three pipes that came from outside."""

from __future__ import annotations

import os
import socket
import time
from typing import Any, Protocol

from libs.runtime.holder.inside import wire
from libs.runtime.holder.inside.loop import READABLE, WRITABLE, Loop
from libs.runtime.holder.inside.ring import Ring

_CHUNK_BYTES = 64 * 1024
# Some hundreds of acknowledgements: who takes none of them has gone.
_SAID_BYTES = 64 * 1024


class Shell(Protocol):
    """What an attachment serves."""

    ring: Ring

    def take(self, kind: bytes, payload: bytes) -> None:
        """A frame of the service."""
        ...

    def progressed(self) -> None:
        """The service has taken output."""
        ...

    def detached(self, attachment: Attachment) -> None:
        """The service is gone."""
        ...


class Attachment:
    """Sends output from `position` on, says what there is to say, and takes frames.

    `presence` is the connection of the process whose pipes these are: it lives as long as that is open.
    """

    def __init__(self, loop: Loop, shell: Shell, pipes: list[int], presence: socket.socket, position: int) -> None:
        self._loop = loop
        self._shell = shell
        self._input, self._output, self._control = pipes
        self._presence = presence
        self.position = position
        self._frames = wire.Frames()
        self._said = bytearray()
        self._sending = self._saying = self._listening = False
        self._is_open = True
        self._heard_at = time.monotonic()
        for fd in pipes:
            os.set_blocking(fd, False)
        loop.watch(presence.fileno(), READABLE, lambda _: self.close())
        self.listen(True)
        loop.later(wire.SILENT_S, self._look_whether_it_lives)

    @property
    def is_behind(self) -> bool:
        """Whether there is output that it has not sent."""
        return self.position < self._shell.ring.end

    def say(self, what: str, value: Any) -> None:
        """A line beside the output."""
        self._said += wire.line(what, value)
        self._flush()
        if len(self._said) > _SAID_BYTES:
            self.close()

    def more(self) -> None:
        """There is new output."""
        if not self._sending:
            self._send()

    def listen(self, wanted: bool) -> None:
        """Take frames, or leave them where they are."""
        if self._is_open and wanted != self._listening:
            self._listening = wanted
            if wanted:
                self._loop.watch(self._input, READABLE, self._on_input)
            else:
                self._loop.forget(self._input)

    def close(self) -> None:
        """Let go of the pipes; whoever holds their other ends sees it."""
        if not self._is_open:
            return
        self._is_open = False
        for fd in (self._input, self._output, self._control):
            self._loop.forget(fd)
            # The process they belong to may have a last word to say.
            os.set_blocking(fd, True)
            os.close(fd)
        self._loop.forget(self._presence.fileno())
        self._presence.close()
        self._shell.detached(self)

    def _look_whether_it_lives(self) -> None:
        if not self._is_open:
            return
        silent = time.monotonic() - self._heard_at
        # What waits to be read is not silence.
        if silent >= wire.SILENT_S and self._listening:
            self.close()
        else:
            self._loop.later(max(wire.SILENT_S - silent, wire.BEAT_S), self._look_whether_it_lives)

    def _on_input(self, _: int) -> None:
        self._heard_at = time.monotonic()
        try:
            data = os.read(self._input, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        for kind, payload in self._frames.feed(data):
            self._shell.take(kind, payload)

    def _send(self, _: int = 0) -> None:
        if self.is_behind:
            sent = self._write(self._output, self._shell.ring.read(self.position, _CHUNK_BYTES))
            self.position += sent
        if self._is_open and self._sending != self.is_behind:
            self._sending = not self._sending
            if self._sending:
                self._loop.watch(self._output, WRITABLE, self._send)
            else:
                self._loop.forget(self._output)
        self._shell.progressed()

    def _flush(self, _: int = 0) -> None:
        del self._said[: self._write(self._control, self._said)]
        if self._is_open and self._saying != bool(self._said):
            self._saying = not self._saying
            if self._saying:
                self._loop.watch(self._control, WRITABLE, self._flush)
            else:
                self._loop.forget(self._control)

    def _write(self, fd: int, data: bytes | bytearray) -> int:
        if not self._is_open:
            return 0
        try:
            return os.write(fd, data)
        except BlockingIOError:
            return 0
        except OSError:
            self.close()
            return 0
