"""The holder: all shells of one workspace in one process."""

from __future__ import annotations

import json
import os
import socket
import struct
from contextlib import suppress
from typing import Any, NoReturn

from libs.runtime.holder.inside import wire
from libs.runtime.holder.inside.attachment import Attachment
from libs.runtime.holder.inside.background import Background
from libs.runtime.holder.inside.client import LENGTHS
from libs.runtime.holder.inside.shell import HeldShell

# More than Linux lets a program start with.
_PART_BYTES = 8 << 20
_REQUEST_S = 2.0
_IDLE_S = 60.0


def run(listener: socket.socket, path: str, lock_path: str) -> NoReturn:
    """Until nobody has had a shell for a minute."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    # The lock of who started this process, for one, would be held for as long as it lives.
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in {0, 1, 2, listener.fileno()}:
            with suppress(OSError):
                os.close(int(name))
    Holder(listener, path, lock_path, _IDLE_S).run()


class Holder(Background):
    """Starts shells and finds them again."""

    def __init__(self, listener: socket.socket, path: str, lock_path: str, idle_s: float) -> None:
        super().__init__(listener, path, lock_path, idle_s)
        self._shells: dict[str, HeldShell] = {}

    @property
    def is_idle(self) -> bool:
        """See Background."""
        return not self._shells

    def connected(self, connection: socket.socket) -> None:
        """See Background."""
        connection.settimeout(_REQUEST_S)
        pipes: list[int] = []
        try:
            request, environment, directory = _receive(connection, pipes)
            connection.setblocking(True)
            shell = self._shells.get(request["session"])
            if shell is None and request["do"] == "open":
                shell = HeldShell(self.loop, request, environment, directory, on_gone=self._forget)
                self._shells[shell.id] = shell
            self._serve(shell, request["offset"], pipes, connection)
        except (OSError, ValueError, KeyError) as error:
            os.write(2, f"{error!r}\n".encode())
            for fd in pipes:
                os.close(fd)
            connection.close()

    def child_ended(self, pid: int, code: int) -> None:
        """See Background."""
        for shell in list(self._shells.values()):
            # Later processes may have the number of one that is only remembered.
            if shell.pid == pid and not shell.has_exited:
                shell.exited(code)

    def _serve(self, shell: HeldShell | None, offset: int, pipes: list[int], connection: socket.socket) -> None:
        if shell is None or shell.is_ending:
            os.write(pipes[2], wire.line("refused", "unknown_session"))
            for fd in pipes:
                os.close(fd)
            connection.close()
            return
        position = min(max(offset, shell.ring.start), shell.ring.end)
        shell.attach(Attachment(self.loop, shell, pipes, connection, position))

    def _forget(self, shell: HeldShell) -> None:
        self._shells.pop(shell.id, None)
        self.may_be_idle()


def _receive(connection: socket.socket, pipes: list[int]) -> tuple[dict[str, Any], dict[bytes, bytes], bytes]:
    """The request, environment and directory of who connects; `pipes` gets the descriptors that come with them."""
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    head, ancillary, _, _ = connection.recvmsg(LENGTHS.size, socket.CMSG_SPACE(3 * 4), flags)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            pipes += struct.unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4])
    if len(head) < LENGTHS.size or len(pipes) != 3:
        raise ValueError("no request")
    request, environment, directory = (_exactly(connection, length) for length in LENGTHS.unpack(head))
    pairs = (entry.partition(b"=") for entry in environment.split(b"\0"))
    return json.loads(request), {name: value for name, _, value in pairs}, directory


def _exactly(connection: socket.socket, length: int) -> bytes:
    if length > _PART_BYTES:
        raise ValueError("the request is too large")
    text = b""
    while len(text) < length:
        part = connection.recv(length - len(text))
        if not part:
            raise ValueError("the request has no end")
        text += part
    return text
