"""Reaching the keeper, or starting it. Blocks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from libs.runtime.holder.shells import HolderMissingError, ShellGoneError
from libs.runtime.local.environment import CLEAN_ENVIRONMENT
from libs.runtime.local.keeper import messages
from libs.runtime.local.keeper.journal import is_supported
from libs.runtime.local.keeper.places import keeper_folder, lock_path, log_path, socket_path
from libs.runtime.local.layout import Layout
from libs.runtime.port import (
    DriverError,
    RuntimeUnavailableError,
    WorkspaceNotFoundError,
    WorkspaceNotRunningError,
    WorkspaceRejectedError,
)

_ANSWER_S = 20.0
_PROJECT = Path(__file__).resolve().parents[4]
_ERRORS = {
    kind.__name__: kind
    for kind in (
        RuntimeUnavailableError,
        WorkspaceNotFoundError,
        WorkspaceNotRunningError,
        WorkspaceRejectedError,
    )
}

Answer = tuple[socket.socket, dict[str, Any], list[int]]


def ask(layout: Layout, request: dict[str, Any], pipe_out: int) -> Answer:
    """To open a shell or attach to one: the connection, the answer and its descriptors.

    Raises HolderMissingError, ShellGoneError, WorkspaceNotFoundError, WorkspaceNotRunningError,
    RuntimeUnavailableError.
    """
    if not is_supported():
        raise HolderMissingError("The kernel of this machine is too old to keep shells.")
    try:
        connection = _connect(layout, may_start=request["do"] == "open")
    except (OSError, subprocess.SubprocessError) as error:
        raise HolderMissingError(f"No keeper of shells can be started: {error}") from error
    if connection is None:
        raise ShellGoneError("Nobody keeps shells here.")
    try:
        try:
            messages.send(connection, request, [pipe_out])
            answer, descriptors = messages.receive(connection)
        except BaseException:
            connection.close()
            raise
    except (OSError, ValueError) as error:
        raise RuntimeUnavailableError(f"The keeper of shells does not answer: {error}") from error
    if "error" in answer:
        connection.close()
        raise _error(answer)
    connection.setblocking(False)
    return connection, answer, descriptors


def quit_keeper(layout: Layout) -> None:
    """End it with all its shells; fine when there is none."""
    with contextlib.suppress(OSError, ValueError):
        connection = _connect(layout, may_start=False)
        if connection is not None:
            with connection:
                messages.send(connection, {"do": "quit"}, [])
                connection.recv(1)


def _error(answer: dict[str, Any]) -> DriverError:
    if answer["error"] == "ShellGone":
        return ShellGoneError(answer["message"])
    kind = _ERRORS.get(answer["kind"], RuntimeUnavailableError)
    return kind(answer["message"], reason=answer["error"])


def _connect(layout: Layout, *, may_start: bool) -> socket.socket | None:
    """None when no keeper is there and none may be started."""
    folder = keeper_folder(layout)
    if not may_start and not folder.exists():
        return None
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(lock_path(layout), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _short(folder) as short:
            try:
                return _reach(short)
            except (FileNotFoundError, ConnectionRefusedError):
                if not may_start:
                    return None
            socket_path(layout).unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(f"{short}/socket")
                listener.listen(128)
                _start(layout, listener)
            return _reach(short)
    finally:
        os.close(lock)


def _reach(folder: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_ANSWER_S)
        connection.connect(f"{folder}/socket")
    except OSError:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A path to it that fits into a socket's address, of which Linux has 108 bytes."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _start(layout: Layout, listener: socket.socket) -> None:
    """It goes into the background by itself, so that it is nobody's child."""
    with log_path(layout).open("wb") as log:
        subprocess.run(
            [sys.executable, "-S", "-m", "libs.runtime.local.keeper", str(layout.root)],
            stdin=listener.fileno(),
            stdout=log,
            stderr=log,
            env={**CLEAN_ENVIRONMENT, "PYTHONPATH": str(_PROJECT)},
            check=True,
            timeout=_ANSWER_S,
        )
