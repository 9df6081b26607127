"""The keeper's process: all kept shells of one runtime directory."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from libs.runtime.holder.inside.loop import READABLE, Loop
from libs.runtime.local.keeper import messages
from libs.runtime.local.keeper.journal import Journal
from libs.runtime.local.keeper.places import lock_path, socket_path
from libs.runtime.local.keeper.session import KeptSession
from libs.runtime.local.keeper.starting import start_login_shell
from libs.runtime.local.layout import Layout
from libs.runtime.local.members import end_session
from libs.runtime.port import DriverError, TerminalSize

_REQUEST_S = 2.0
_IDLE_S = 5.0


class Keeper:
    """Starts shells and finds them again."""

    def __init__(self, layout: Layout, listener: socket.socket) -> None:
        self._layout = layout
        self._listener = listener
        self._loop = Loop()
        self._sessions: dict[str, KeptSession] = {}
        self._environments: dict[str, str] = {}
        self._done: deque[Callable[[], None]] = deque()
        self._woken, self._waker = socket.socketpair()
        self._is_quitting = False
        self._quitting: socket.socket | None = None

    def run(self) -> NoReturn:
        """Serve."""
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Not ignored, which shells would inherit.
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._loop.watch(self._woken.fileno(), READABLE, self._wake)
        self._loop.watch(self._listener.fileno(), READABLE, self._accept)
        self._loop.later(_IDLE_S, self._end_if_idle)
        while True:
            self._loop.turn()

    def _accept(self, _: int) -> None:
        connection, _address = self._listener.accept()
        connection.settimeout(_REQUEST_S)
        descriptors: list[int] = []
        try:
            request, descriptors = messages.receive(connection)
            if request["do"] == "quit":
                self._quit(connection)
                return
            session = self._sessions.get(request["session"])
            if session is None and request["do"] == "open":
                session = self._start(request)
            if session is None or session.is_ending:
                messages.send(connection, {"error": "ShellGone", "message": "The shell has ended."}, [])
            else:
                session.attach(connection, descriptors.pop())
                return
        except DriverError as error:
            answer = {"error": error.reason, "kind": type(error).__name__, "message": str(error)}
            with suppress(OSError):
                messages.send(connection, answer, [])
        except (OSError, ValueError, KeyError, IndexError) as error:
            os.write(2, f"{error!r}\n".encode())
        for fd in descriptors:
            os.close(fd)
        connection.close()

    def _start(self, request: dict[str, Any]) -> KeptSession:
        size = TerminalSize(request["cols"], request["rows"])
        shell = start_login_shell(self._layout, request["environment_id"], size)
        journal = Journal.make(request["limit"])
        session = KeptSession(
            self._loop, request["session"], shell, journal, keep_s=request["keep_s"], on_left=self._end
        )
        self._sessions[session.id] = session
        self._environments[session.id] = request["environment_id"]
        return session

    def _end(self, session: KeptSession) -> None:
        environment_id = self._environments[session.id]
        leader, run = session.shell.leader, session.shell.run

        def end() -> None:
            if leader is not None:
                end_session(environment_id, run, leader)
            self._done.append(lambda: self._gone(session))
            self._waker.send(b"\0")

        threading.Thread(target=end, daemon=True).start()

    def _gone(self, session: KeptSession) -> None:
        session.gone()
        del self._sessions[session.id], self._environments[session.id]
        if self._is_quitting and not self._sessions:
            self._leave()
        self._loop.later(_IDLE_S, self._end_if_idle)

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
            code = os.waitstatus_to_exitcode(status)
            for session in list(self._sessions.values()):
                # Later processes may have the number of one that is only remembered.
                if session.shell.pid == pid and session.exit_code is None:
                    session.exited(code if code >= 0 else 128 - code)

    def _quit(self, connection: socket.socket) -> None:
        """The answer is the end of this process."""
        self._quitting = connection
        self._is_quitting = True
        for session in list(self._sessions.values()):
            session.end()
        if not self._sessions:
            self._leave()

    def _end_if_idle(self) -> None:
        if self._sessions:
            return
        # Whoever is about to connect holds the lock.
        lock = os.open(lock_path(self._layout), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            self._loop.later(_IDLE_S, self._end_if_idle)
            return
        self._leave()

    def _leave(self) -> NoReturn:
        with suppress(FileNotFoundError):
            socket_path(self._layout).unlink()
        os._exit(0)
