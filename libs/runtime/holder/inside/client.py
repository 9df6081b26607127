"""What the service starts in the workspace: finds the holder, or becomes its parent, and hands its own pipes over."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct

# Of the request, the environment and the directory; the three pipes come with them.
LENGTHS = struct.Struct(">3I")
# As small as a process can be: it stands for the connection, and ends with it.
_STAND_IN = ["/bin/sh", "-c", "read -r _; exit 0"]


def main(workspace: str, do: str, request: str) -> None:
    """`request` is JSON, which only the holder reads. Raises nothing: what goes wrong is said on standard error."""
    try:
        directory = _own_directory("/tmp/.devpocket-" + workspace)  # noqa: S108 - inside the workspace
        connection = _connect(directory, may_start=do == "open")
        if connection is None:
            _refuse("unknown_session")
            return
        environment = b"\0".join(name + b"=" + value for name, value in os.environb.items())
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("3i", 0, 1, 2))]
        parts = [request.encode(), environment, os.getcwdb()]
        head = LENGTHS.pack(*map(len, parts))
        connection.sendmsg([head], rights)
        connection.sendall(b"".join(parts))
    except OSError as error:
        _refuse(repr(error).replace('"', "'"))
        return
    os.dup2(connection.fileno(), 0)
    null = os.open("/dev/null", os.O_RDWR)
    # The pipes are the holder's now; whoever started this process has copies of its own.
    for fd in (1, 2):
        os.dup2(null, fd)
    os.execv(_STAND_IN[0], _STAND_IN)  # noqa: S606 - exactly this program


def _own_directory(path: str) -> str:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        there = os.lstat(path)
        if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.geteuid() or there.st_mode & 0o077:
            raise OSError(path + " is not a directory of this user alone") from None
    return path


def _connect(directory: str, *, may_start: bool) -> socket.socket | None:
    """None when no holder is there and none may be started."""
    path, lock_path = directory + "/holder", directory + "/lock"
    lock = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        connection = _reach(path)
    except (FileNotFoundError, ConnectionRefusedError):
        if not may_start:
            return None
        _start_holder(path, lock_path)
        connection = _reach(path)
    os.close(lock)
    return connection


def _reach(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _start_holder(path: str, lock_path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        listener.close()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    try:
        # Only where it is needed: it takes longer to compile than all else here.
        from libs.runtime.holder.inside import daemon  # noqa: PLC0415

        daemon.run(listener, path, lock_path)
    finally:
        os._exit(1)


def _refuse(why: str) -> None:
    os.write(2, ('{"refused":"' + why + '"}\n').encode())
