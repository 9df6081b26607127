"""Facts about processes, read from /proc without being fooled by a pid that was used again."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_DEAD = ("Z", "X")
# Behind the name, up to the last one that is looked at.
_STAT_WORDS = 22


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """From /proc/<pid>/stat; times in clock ticks, `rss_bytes` in bytes; `terminal` is 0 without one.

    Pids and the session are numbers of the process table they were read from.
    """

    pid: int
    state: str
    parent: int
    session: int
    terminal: int
    start: int
    cpu_ticks: int
    rss_bytes: int


class ProcessTable:
    """One procfs: the host's, or that of a sandbox, which lists nothing but the sandbox's own processes.

    Holds a descriptor; use it as a context manager.
    """

    def __init__(self, directory: int) -> None:
        self._directory = directory

    @classmethod
    def of_host(cls) -> ProcessTable:
        """Every process that this one can see."""
        return cls(os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    @classmethod
    def of_sandbox(cls, init_pid: int, init_start: int) -> ProcessTable | None:
        """The processes below a PID namespace's init; None when it is gone."""
        try:
            table = cls(os.open(f"/proc/{init_pid}/root/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError:
            return None
        # Still the same init after the open: then it was not a stranger's root, perhaps the host's.
        if is_alive(init_pid, init_start):
            return table
        table.close()
        return None

    def __enter__(self) -> ProcessTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def read(self, pid: int) -> ProcessInfo | None:
        """What the kernel says of a pid, or None when there is no such process."""
        return _read_stat(f"{pid}/stat", self._directory)

    def living(self, wanted: Callable[[ProcessInfo], bool] = lambda _: True) -> list[ProcessInfo]:
        """All processes that run and are wanted."""
        try:
            pids = [int(name) for name in os.listdir(self._directory) if name.isdigit()]
        except OSError:
            return []
        found = (self.read(pid) for pid in pids)
        return [info for info in found if info is not None and info.state not in _DEAD and wanted(info)]

    def signal(self, processes: Iterable[ProcessInfo], *signals: signal.Signals) -> None:
        """Signal exactly these processes: an open /proc/<pid> is a handle that never means another one."""
        for info in processes:
            try:
                handle = os.open(str(info.pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._directory)
            except OSError:
                continue
            try:
                now = _read_stat("stat", handle)
                if now is not None and now.start == info.start:
                    for number in signals:
                        signal.pidfd_send_signal(handle, number)
            except ProcessLookupError:
                pass
            finally:
                os.close(handle)


def read_process(pid: int) -> ProcessInfo | None:
    """What the kernel says of a pid of this namespace, or None when there is no such process."""
    return _read_stat(f"/proc/{pid}/stat", None)


def _read_stat(path: str, directory: int | None) -> ProcessInfo | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            text = os.read(fd, 4096)
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parse_stat(text)


def parse_stat(text: bytes) -> ProcessInfo | None:
    """What a /proc/<pid>/stat says; None when it is none."""
    # The program's name, in parentheses, may hold anything, also spaces and parentheses.
    number, _, named = text.partition(b" ")
    rest = named[named.rfind(b")") + 2 :].split()
    if not number.isdigit() or len(rest) < _STAT_WORDS:
        return None
    return ProcessInfo(
        pid=int(number),
        state=rest[0].decode(),
        parent=int(rest[1]),
        session=int(rest[3]),
        terminal=int(rest[4]),
        start=int(rest[19]),
        cpu_ticks=int(rest[11]) + int(rest[12]),
        rss_bytes=int(rest[21]) * _PAGE,
    )


def innermost_pid(pid: int) -> int:
    """A process's number in its own PID namespace; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[-1]) for line in text.splitlines() if line.startswith("NSpid:")), pid)


def is_alive(pid: int, start: int) -> bool:
    """Whether this very process (pid and start time) still runs; a zombie does not."""
    info = read_process(pid) if pid > 0 else None
    return info is not None and info.start == start and info.state not in _DEAD


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


def wait_until_gone(find: Callable[[], list[ProcessInfo]], timeout_seconds: float) -> list[ProcessInfo]:
    """Block until `find` finds nothing; gives what is left when the time is up."""
    deadline, pause = time.monotonic() + timeout_seconds, 0.002
    while (left := find()) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return left
