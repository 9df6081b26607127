"""Facts about processes, read from /proc without being fooled by a pid that was used again."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """From /proc/<pid>/stat; times in clock ticks, `rss_bytes` in bytes; `terminal` is 0 without one."""

    pid: int
    state: str
    parent: int
    session: int
    terminal: int
    start: int
    cpu_ticks: int
    rss_bytes: int


_PAGE = os.sysconf("SC_PAGE_SIZE")


def read_process(pid: int) -> ProcessInfo | None:
    """What the kernel says of a pid, or None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name, in parentheses, may hold anything, also spaces and parentheses.
    rest = text[text.rindex(b")") + 2 :].split()
    return ProcessInfo(
        pid=pid,
        state=rest[0].decode(),
        parent=int(rest[1]),
        session=int(rest[3]),
        terminal=int(rest[4]),
        start=int(rest[19]),
        cpu_ticks=int(rest[11]) + int(rest[12]),
        rss_bytes=int(rest[21]) * _PAGE,
    )


def is_alive(pid: int, start: int) -> bool:
    """Whether this very process (pid and start time) still runs; a zombie does not."""
    info = read_process(pid) if pid > 0 else None
    return info is not None and info.start == start and info.state not in ("Z", "X")


def boot_id() -> str:
    """Changes with every start of the machine, so that start times of an earlier boot mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def open_pidfd(pid: int, start: int) -> int | None:
    """A handle on this very process, or None when it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError):
        return None
    if is_alive(pid, start):
        return fd
    os.close(fd)
    return None


def wait_for_exit(pid: int, start: int, timeout_seconds: float) -> bool:
    """Block until the process has ended; False when the time was up first."""
    fd = open_pidfd(pid, start)
    if fd is None:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(max(0, int(timeout_seconds * 1000))))
    finally:
        os.close(fd)


def all_pids() -> list[int]:
    """Every pid this process can see."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def namespace_inode(pid: int | str, kind: str = "pid") -> int | None:
    """The number that names a process's namespace, or None when it is gone or not ours to see."""
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return None


def members_of_namespace(inode: int) -> list[ProcessInfo]:
    """Every living process inside a PID namespace, its init included."""
    found = (read_process(pid) for pid in all_pids() if namespace_inode(pid) == inode)
    return [info for info in found if info is not None and info.state not in ("Z", "X")]


def send_signals(
    processes: Iterable[ProcessInfo], signals: Iterable[signal.Signals], *, still: Callable[[int], bool]
) -> None:
    """Signal processes through handles; `still(pid)` is asked after the handle is taken, so no stranger is hit."""
    numbers = tuple(signals)
    for info in processes:
        fd = open_pidfd(info.pid, info.start)
        if fd is None:
            continue
        try:
            if still(info.pid):
                for number in numbers:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)


def wait_until_gone(find: Callable[[], list[ProcessInfo]], timeout_seconds: float) -> list[ProcessInfo]:
    """Block until `find` finds nothing; gives what is left when the time is up."""
    deadline = time.monotonic() + timeout_seconds
    while left := find():
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            break
        wait_for_exit(left[0].pid, left[0].start, min(remaining, 0.05))
    return left


def children_of(pid: int) -> list[int]:
    """Pids of a process's children."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:
        # A kernel without CONFIG_PROC_CHILDREN (or no such process, then nothing has it as its parent).
        infos = (read_process(other) for other in all_pids())
        return [info.pid for info in infos if info is not None and info.parent == pid]
