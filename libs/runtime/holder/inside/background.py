"""A process in the background that has shells as children and ends when it has none."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from libs.runtime.holder.inside.loop import READABLE, Loop


class Background(ABC):
    """Listens, is told how its children end, and goes once it was idle for `idle_s`.

    `lock_path`: whoever is about to connect holds this lock, so that nobody finds a socket that is being left.
    """

    def __init__(self, listener: socket.socket, path: str, lock_path: str, idle_s: float) -> None:
        self.loop = Loop()
        self._listener = listener
        self._path = path
        self._lock_path = lock_path
        self._idle_s = idle_s
        self._done: deque[Callable[[], None]] = deque()
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)

    def run(self) -> NoReturn:
        """Serve."""
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        # Not ignored, which shells would inherit.
        for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self.loop.watch(self._woken.fileno(), READABLE, self._wake)
        self.loop.watch(self._listener.fileno(), READABLE, lambda _: self.connected(self._listener.accept()[0]))
        self.may_be_idle()
        while True:
            self.loop.turn()

    @abstractmethod
    def connected(self, connection: socket.socket) -> None:
        """Somebody wants something."""

    @abstractmethod
    def child_ended(self, pid: int, code: int) -> None:
        """With this exit code; 128 + n when signal n ended it."""

    @property
    @abstractmethod
    def is_idle(self) -> bool:
        """Whether nothing is left to wait for."""

    def soon(self, act: Callable[[], None]) -> None:
        """From another thread: in the next turn of the loop."""
        self._done.append(act)
        self._waker.send(b"\0")

    def may_be_idle(self) -> None:
        """Look after a while whether it is time to go."""
        self.loop.later(self._idle_s, self._leave_if_idle)

    def leave(self) -> NoReturn:
        """Be gone."""
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        os._exit(0)

    def _wake(self, _: int) -> None:
        self._woken.recv(4096)
        while self._done:
            self._done.popleft()()
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.child_ended(pid, os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))

    def _leave_if_idle(self) -> None:
        if not self.is_idle:
            return
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            self.may_be_idle()
            return
        self.leave()
