"""What the service starts in the workspace: finds the holder, or becomes its parent, and hands its own pipes over."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import struct
import sys
from typing import Any

from libs.runtime.holder.inside import daemon, wire

# As small as a process can be: it stands for the connection, and ends with it.
_STAND_IN = ["/bin/sh", "-c", "read -r _; exit 0"]


def main(request: dict[str, Any]) -> None:
    """Raises nothing: what goes wrong is said on standard error."""
    try:
        directory = _own_directory("/tmp/.devpocket-" + request["workspace"])  # noqa: S108 - inside the workspace
        connection = _connect(directory, may_start=request["do"] == "open")
        if connection is None:
            _say("refused", "unknown_session")
            return
        if request["do"] == "open":
            environment = {name: value for name, value in os.environ.items() if not name.startswith("_dp_")}
            argv = request["argv"] or login_shell(environment)
            request = {**request, "argv": argv, "env": environment, "cwd": os.getcwd()}
        text = json.dumps(request).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("3i", 0, 1, 2))]
        connection.sendmsg([daemon.LENGTH.pack(len(text))], rights)
        connection.sendall(text)
    except (OSError, ValueError) as error:
        _say("refused", repr(error))
        return
    os.dup2(connection.fileno(), 0)
    null = os.open("/dev/null", os.O_RDWR)
    # The pipes are the holder's now; whoever started this process has copies of its own.
    for fd in (1, 2):
        os.dup2(null, fd)
    os.execv(_STAND_IN[0], _STAND_IN)  # noqa: S606 - exactly this program


def login_shell(environment: dict[str, str]) -> list[str]:
    """The user's. The login profile of an image that is not ours may drop the image's own places from PATH."""
    candidates = (environment.get("SHELL", ""), "/bin/bash", "/bin/sh")
    shell = next((path for path in candidates if os.access(path, os.X_OK)), "/bin/sh")
    is_ours = os.path.exists("/opt/devpocket") or os.path.exists("/etc/devpocket")
    if is_ours or os.path.basename(shell) not in ("sh", "bash"):
        return [shell, "-l"]
    return [shell, "-lc", 'PATH=$1:$PATH; exec "$0"', shell, environment.get("PATH", "")]


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
        daemon.run(listener, path, lock_path)
    finally:
        os._exit(1)


def _say(what: str, value: str) -> None:
    sys.stderr.buffer.write(wire.line(what, value))
    sys.stderr.buffer.flush()
