"""The keeper's process: all kept shells of one runtime directory."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Any

from libs.runtime.holder.inside.background import Background
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


class Keeper(Background):
    """Starts shells and finds them again."""

    def __init__(self, layout: Layout, listener: socket.socket) -> None:
        super().__init__(listener, str(socket_path(layout)), str(lock_path(layout)), _IDLE_S)
        self._layout = layout
        self._sessions: dict[str, KeptSession] = {}
        self._environments: dict[str, str] = {}
        self._quitting: socket.socket | None = None

    @property
    def is_idle(self) -> bool:
        """See Background."""
        return not self._sessions

    def connected(self, connection: socket.socket) -> None:
        """See Background."""
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
            self.loop, request["session"], shell, journal, keep_s=request["keep_s"], on_left=self._end
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
            self.soon(lambda: self._gone(session))

        threading.Thread(target=end, daemon=True).start()

    def _gone(self, session: KeptSession) -> None:
        session.gone()
        del self._sessions[session.id], self._environments[session.id]
        if self._quitting is not None and self.is_idle:
            self.leave()
        self.may_be_idle()

    def child_ended(self, pid: int, code: int) -> None:
        """See Background."""
        for session in list(self._sessions.values()):
            # Later processes may have the number of one that is only remembered.
            if session.shell.pid == pid and session.exit_code is None:
                session.exited(code)

    def _quit(self, connection: socket.socket) -> None:
        """The answer is the end of this process."""
        self._quitting = connection
        for session in list(self._sessions.values()):
            session.end()
        if self.is_idle:
            self.leave()
