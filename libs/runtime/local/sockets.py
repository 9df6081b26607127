"""Sockets that belong to a sandbox's network: a socket stays in the namespace it was made in, whoever uses it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import sys
import threading

from libs.runtime.local.environment import CLEAN_ENVIRONMENT
from libs.runtime.local.isolation import Isolation, find_program
from libs.runtime.local.launcher import spawn
from libs.runtime.local.processes import is_alive
from libs.runtime.local.records import RunRecord
from libs.runtime.port import RuntimeUnavailableError, WorkspaceNotRunningError

_NS_GET_USERNS = 0xB701
_CLONE_NEWNET = 0x40000000
_HELPER_MILLISECONDS = 5000
# Runs our interpreter on our files; only the network, and the users it needs for that, are the sandbox's.
_HELPER = (
    "import socket, sys; made = socket.socket(int(sys.argv[1]), socket.SOCK_STREAM); "
    "socket.send_fds(socket.socket(fileno=3), [b'.'], [made.fileno()])"
)
_libc = ctypes.CDLL(None, use_errno=True)


def socket_inside(run: RunRecord, family: socket.AddressFamily) -> socket.socket:
    """An unconnected TCP socket in the network of a sandbox. Blocks for up to some milliseconds.

    Raises WorkspaceNotRunningError, RuntimeUnavailableError.
    """
    namespace = _network_of(run)
    try:
        if run.isolation == Isolation.ROOT:
            return _made_in_thread(namespace, family)
        return _made_by_helper(namespace, family)
    except OSError as error:
        raise RuntimeUnavailableError(f"The sandbox's network cannot be entered: {error}", reason="NoWayIn") from error
    finally:
        os.close(namespace)


def _network_of(run: RunRecord) -> int:
    try:
        namespace = os.open(f"/proc/{run.init_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise WorkspaceNotRunningError("The workspace has just ended.") from error
    # Still the same process after the open: then it was its own. Never ours, where the services listen.
    is_its_own = is_alive(run.init_pid, run.init_start)
    if is_its_own and not os.path.samestat(os.fstat(namespace), os.stat("/proc/self/ns/net")):
        return namespace
    os.close(namespace)
    raise WorkspaceNotRunningError("The workspace has just ended.")


def _made_in_thread(namespace: int, family: socket.AddressFamily) -> socket.socket:
    """By a thread that changes its own network and ends with it: no other thread ever sees that network."""
    made: list[socket.socket | OSError] = []

    def make() -> None:
        if _libc.setns(namespace, _CLONE_NEWNET):
            number = ctypes.get_errno()
            made.append(OSError(number, os.strerror(number)))
            return
        try:
            made.append(socket.socket(family, socket.SOCK_STREAM))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make, name="socket-inside")
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def _made_by_helper(namespace: int, family: socket.AddressFamily) -> socket.socket:
    """An ordinary user may enter only together with the user namespace, which takes a process of one thread."""
    owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    ours, theirs = socket.socketpair()
    try:
        enter = [find_program("nsenter") or "nsenter", "--preserve-credentials"]
        enter += ["--user=/proc/self/fd/5", "--net=/proc/self/fd/4", "--"]
        command = [*enter, sys.executable, "-I", "-S", "-c", _HELPER, str(int(family))]
        descriptors = {0: nothing, 1: nothing, 2: nothing, 3: theirs.fileno(), 4: namespace, 5: owner}
        pid = spawn(command, CLEAN_ENVIRONMENT, descriptors)
        theirs.close()
        try:
            return _handed_over(ours, family)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # somebody else in this process reaps every child
                os.waitpid(pid, 0)
    finally:
        theirs.close()
        ours.close()
        os.close(nothing)
        os.close(owner)


def _handed_over(ours: socket.socket, family: socket.AddressFamily) -> socket.socket:
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    descriptors = socket.recv_fds(ours, 1, 1)[1] if poll.poll(_HELPER_MILLISECONDS) else []
    if not descriptors:
        raise OSError("no socket was handed over")
    handed = socket.socket(fileno=descriptors[0])
    if handed.family != family or handed.type != socket.SOCK_STREAM:
        handed.close()
        raise OSError("what was handed over is no such socket")
    return handed
