"""One shell on its terminal, with the last of its output, whether anybody is there or not."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from libs.runtime.holder.inside import wire
from libs.runtime.holder.inside.attachment import Attachment
from libs.runtime.holder.inside.loop import READABLE, WRITABLE, Loop, Timer
from libs.runtime.holder.inside.numbers import Numbers
from libs.runtime.holder.inside.processes import end_session
from libs.runtime.holder.inside.ring import Ring

_READ_BYTES = 64 * 1024
_INPUT_BYTES = 64 * 1024
# As services had it before they said so.
_QUIET_S = 10.0
# After the shell has ended its children may still hold the terminal; output on its way arrives within this.
_SETTLE_S = 0.3


class HeldShell:
    """Paused when the service is `window` bytes behind, and as far behind for `hold_s` after it has gone.

    Then it runs on at `pace` bytes a second, and the ring forgets. `keep_s` after the service has gone it is ended. The
    ring holds `burst` bytes while output flows, and `quiet` once it rests and somebody has it.
    """

    def __init__(
        self,
        loop: Loop,
        request: dict[str, Any],
        environment: dict[bytes, bytes],
        directory: bytes,
        *,
        on_gone: Callable[[HeldShell], None],
    ) -> None:
        self.id: str = request["session"]
        self.ring = Ring(request["burst"])
        self.pid = 0
        self._loop = loop
        self._on_gone = on_gone
        self._window: int = request["window"]
        self._quiet: int = request["quiet"]
        self._quiet_s: float = request.get("quiet_s", _QUIET_S)
        self._hold_s: float = request["hold_s"]
        self._keep_s: float = request["keep_s"]
        self._pace: int = request["pace"]
        self._size = (request["cols"], request["rows"])
        self._attachment: Attachment | None = None
        self._told_exit = False
        self._left_position = 0
        self._held_until = 0.0
        self._keeping: Timer | None = None
        self._trimming: Timer | None = None
        self._wrote_at = 0.0
        self._unpaced = 0
        self._pausing: Timer | None = None
        self._input = bytearray()
        self._numbers = Numbers()
        self._events = 0
        self._ended = False
        self._hung_up = False
        self._exit_code: int | None = None
        self._master = self._spawn(environment, directory)
        self._mind()

    def attach(self, attachment: Attachment) -> None:
        """From now on this one is served; the one before is told that it is another's."""
        before, self._attachment = self._attachment, attachment
        self._told_exit = False
        if before is not None:
            before.say("displaced", True)
            before.close()
        if self._keeping is not None:
            self._keeping.cancel()
        cols, rows = self._size
        hello = {"start": attachment.position, "end": self.ring.end, "cols": cols, "rows": rows}
        numbers = {"taken": self._numbers.taken, "has_forgotten": self._numbers.has_forgotten}
        attachment.say("hello", {**hello, **numbers})
        attachment.more()
        self.progressed()

    def detached(self, attachment: Attachment) -> None:
        """The service is gone."""
        if attachment is self._attachment:
            self._attachment = None
            self._left_position = attachment.position
            self._held_until = time.monotonic() + self._hold_s
            self._loop.later(self._hold_s, self._mind)
            self._keeping = self._loop.later(self._keep_s, self.hang_up)

    def take(self, kind: bytes, payload: bytes) -> None:
        """A frame of the service."""
        if kind == wire.INPUT:
            self._type(payload)
        elif kind == wire.NUMBERED:
            self._take_numbered(*wire.read_numbered(payload))
        elif kind == wire.RESIZE:
            self._size = wire.read_resize(payload)
            self._fit()
        elif kind == wire.HANG_UP:
            self.hang_up()

    def progressed(self) -> None:
        """The service has taken output."""
        self._tell_exit()
        self._mind()

    def exited(self, code: int) -> None:
        """The shell has ended by itself."""
        self._exit_code = code
        self._settle()
        self._tell_exit()

    @property
    def has_exited(self) -> bool:
        """Whether its own process has ended."""
        return self._exit_code is not None

    @property
    def is_ending(self) -> bool:
        """Nobody can be attached to it any more."""
        return self._hung_up

    def hang_up(self) -> None:
        """End it with all that it has started."""
        if not self._hung_up:
            self._hung_up = True
            self._end_output()
            # The kernel sends SIGHUP to the terminal's session.
            os.close(self._master)
            end_session(self._loop, self.pid, self._gone)

    def _gone(self) -> None:
        if self._attachment is not None:
            self._attachment.close()
        for timer in (self._keeping, self._trimming, self._pausing):
            if timer is not None:
                timer.cancel()
        self._on_gone(self)

    def _tell_exit(self) -> None:
        attachment = self._attachment
        if self._ended and self._exit_code is not None and attachment is not None and not self._told_exit:
            self._told_exit = True
            attachment.say("exit", [self._exit_code, self.ring.end])

    def _spawn(self, environment: dict[bytes, bytes], directory: bytes) -> int:
        argv = login_shell(environment)
        self.pid, master = pty.fork()
        if self.pid == 0:
            try:
                # The window as it is wanted, before a program looks.
                fcntl.ioctl(0, termios.TIOCSWINSZ, _winsize(self._size))
                for number in (signal.SIGPIPE, signal.SIGCHLD):
                    signal.signal(number, signal.SIG_DFL)
                with suppress(OSError):
                    os.chdir(directory)
                os.execve(argv[0], argv, environment)  # noqa: S606 - exactly this program
            except BaseException as error:
                os.write(2, f"{argv[0]!r}: {error}\r\n".encode())
            finally:
                os._exit(127)
        os.set_blocking(master, False)
        return master

    def _take_numbered(self, client: str, seq: int, data: bytes) -> None:
        if self._numbers.take(client, seq):
            self._type(data)
        if self._attachment is not None:
            self._attachment.say("ack", [client, self._numbers.taken[client]])

    def _type(self, data: bytes) -> None:
        if self._ended:
            return
        self._input += data
        self._write()

    def _write(self) -> None:
        try:
            while self._input:
                del self._input[: os.write(self._master, memoryview(self._input)[:_INPUT_BYTES].tobytes())]
        except BlockingIOError:
            pass
        except OSError:
            self._input.clear()
        if self._attachment is not None:
            self._attachment.listen(len(self._input) < _INPUT_BYTES)
        self._mind()

    def _fit(self) -> None:
        with suppress(OSError):
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, _winsize(self._size))

    def _on_master(self, events: int) -> None:
        if events & WRITABLE:
            self._write()
        if events & ~WRITABLE:
            self._read()

    def _read(self) -> bool:
        """False when there is nothing to read now."""
        try:
            data = os.read(self._master, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._end_output()
            return False
        self.ring.append(data)
        self._wrote_at = time.monotonic()
        if self._trimming is None:
            self._trimming = self._loop.later(self._quiet_s, self._trim)
        if self._attachment is not None:
            self._attachment.more()
        else:
            self._slow_down(len(data))
        self._mind()
        return True

    def _end_output(self) -> None:
        if not self._ended:
            self._ended = True
            self._input.clear()
            self.progressed()

    def _settle(self) -> None:
        if not self._ended:
            if self._has_room() and not self._read():
                self._end_output()
            self._loop.later(_SETTLE_S, self._settle)

    def _mind(self) -> None:
        """Look for what can be handled now. A hang-up is told even to who looks for nothing, so then it is let go."""
        events = 0
        if not self._ended:
            events |= READABLE if self._pausing is None and self._has_room() else 0
            events |= WRITABLE if self._input else 0
        if events == self._events:
            return
        if not self._events:
            self._loop.watch(self._master, events, self._on_master)
        elif events:
            self._loop.change(self._master, events)
        else:
            self._loop.forget(self._master)
        self._events = events

    def _has_room(self) -> bool:
        if self._attachment is not None:
            reader = self._attachment.position
        elif time.monotonic() < self._held_until:
            reader = self._left_position
        else:
            return True
        return self.ring.end - reader <= self._window

    def _slow_down(self, count: int) -> None:
        self._unpaced += count
        if self._unpaced >= _READ_BYTES:
            self._pausing = self._loop.later(self._unpaced / self._pace, self._resume)
            self._unpaced = 0

    def _resume(self) -> None:
        self._pausing = None
        self._mind()

    def _trim(self) -> None:
        self._trimming = None
        now = time.monotonic()
        # A shell that is paused rests because its output was not taken.
        is_safe = self._has_room() if self._attachment is not None else now >= self._held_until
        if is_safe and now - self._wrote_at >= self._quiet_s:
            self.ring.trim(self._quiet)
        elif self.ring.end - self.ring.start > self._quiet:
            self._trimming = self._loop.later(self._quiet_s, self._trim)


def login_shell(environment: dict[bytes, bytes]) -> list[bytes]:
    """The user's. The login profile of an image that is not ours may drop the image's own places from PATH."""
    candidates = (environment.get(b"SHELL", b""), b"/bin/bash", b"/bin/sh")
    shell = next((path for path in candidates if os.access(path, os.X_OK)), b"/bin/sh")
    is_ours = os.path.exists("/opt/devpocket") or os.path.exists("/etc/devpocket")
    if is_ours or os.path.basename(shell) not in (b"sh", b"bash"):
        return [shell, b"-l"]
    return [shell, b"-lc", b'PATH=$1:$PATH; exec "$0"', shell, environment.get(b"PATH", b"")]


def _winsize(size: tuple[int, int]) -> bytes:
    cols, rows = size
    return struct.pack("HHHH", rows, cols, 0, 0)
