"""Which processes of this machine belong to a workspace."""

from __future__ import annotations

import os
from collections.abc import Callable

from libs.runtime.local.isolation import Isolation
from libs.runtime.local.processes import (
    ProcessInfo,
    all_pids,
    is_alive,
    members_of_namespace,
    namespace_inode,
    read_process,
)
from libs.runtime.local.records import RunRecord


def finder(environment_id: str, run: RunRecord) -> Callable[[], list[ProcessInfo]]:
    """A function that lists the living processes of a run, its init included."""
    if run.isolation != Isolation.PLAIN:
        inode = namespace_inode(run.init_pid)
        return lambda: [] if inode is None else members_of_namespace(inode)
    mine = belongs(environment_id, run)

    def find() -> list[ProcessInfo]:
        found = (read_process(pid) for pid in all_pids() if mine(pid))
        return [info for info in found if info is not None and info.state not in ("Z", "X")]

    return find


def belongs(environment_id: str, run: RunRecord) -> Callable[[int], bool]:
    """A test whether a pid is part of a run.

    In a sandbox the PID namespace decides. Without one: the workspace's own uid (as root), else the mark in the
    environment that every process inherits, which is the best there is.
    """
    if run.isolation != Isolation.PLAIN:
        inode = namespace_inode(run.init_pid)
        return lambda pid: inode is not None and namespace_inode(pid) == inode
    mark = f"DEVPOCKET_ENVIRONMENT_ID={environment_id}".encode()

    def mine(pid: int) -> bool:
        if pid == run.init_pid:
            return is_alive(run.init_pid, run.init_start)
        return _owner(pid) == run.uid if os.geteuid() == 0 else mark in _environment(pid)

    return mine


def _owner(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []
