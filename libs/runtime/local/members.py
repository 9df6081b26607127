"""Which processes belong to a workspace, and to one session in it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from signal import Signals

from libs.runtime.local.isolation import Isolation
from libs.runtime.local.processes import (
    ProcessInfo,
    ProcessTable,
    innermost_pid,
    is_alive,
    wait_until_gone,
)
from libs.runtime.local.records import RunRecord

_HANGUP_SECONDS = 0.5
_KILL_SECONDS = 2.0


class Members:
    """The processes of one run. Get it from `members_of`."""

    def __init__(self, environment_id: str, run: RunRecord, table: ProcessTable | None) -> None:
        self._mark = f"DEVPOCKET_ENVIRONMENT_ID={environment_id}".encode()
        self._run = run
        self._table = table

    def all(self) -> list[ProcessInfo]:
        """Everything that lives, the main process included."""
        if self._table is None:
            return []
        return self._table.living(self._belongs)

    def all_but_main(self) -> list[ProcessInfo]:
        """Everything that lives but the processes that are the sandbox itself."""
        main = {self.number_inside(self._run.init_pid), self.number_inside(self._run.main_pid)}
        return [info for info in self.all() if info.pid not in main]

    def session(self, leader: ProcessInfo) -> list[ProcessInfo]:
        """What lives of a session whose first process was `leader`.

        A session keeps its number as long as it has a member; so the number is only another's when a process
        with another start leads it.
        """
        if self._table is None:
            return []
        now = self._table.read(leader.pid)
        if now is not None and now.start != leader.start:
            return []
        return self._table.living(lambda info: info.session == leader.pid)

    def signal(self, processes: list[ProcessInfo], *signals: Signals) -> None:
        """Signal exactly these."""
        if self._table is not None:
            self._table.signal(processes, *signals)

    def number_inside(self, host_pid: int) -> int:
        """The pid that this run's table has for a process of the host; 0 when it is gone."""
        return host_pid if self._run.isolation == Isolation.PLAIN else innermost_pid(host_pid)

    def _belongs(self, info: ProcessInfo) -> bool:
        """In a sandbox everybody does. Without one: the workspace's own uid (as root), else the mark in the
        environment that every process inherits, which is the best there is."""
        if self._run.isolation != Isolation.PLAIN:
            return True
        if info.pid == self._run.init_pid:
            return is_alive(self._run.init_pid, self._run.init_start)
        if os.geteuid() == 0:
            return _owner(info.pid) == self._run.uid
        return self._mark in _environment(info.pid)


@contextmanager
def members_of(environment_id: str, run: RunRecord) -> Iterator[Members]:
    """The processes of a run; none when it has ended."""
    if run.isolation == Isolation.PLAIN:
        table: ProcessTable | None = ProcessTable.of_host()
    else:
        table = ProcessTable.of_sandbox(run.init_pid, run.init_start)
    try:
        yield Members(environment_id, run, table)
    finally:
        if table is not None:
            table.close()


def end_session(environment_id: str, run: RunRecord, leader: ProcessInfo) -> None:
    """Hang up, give half a second, then kill for as long as anybody is left, at most two seconds. Blocks."""
    with members_of(environment_id, run) as members:

        def left() -> list[ProcessInfo]:
            return members.session(leader)

        members.signal(left(), signal.SIGHUP, signal.SIGCONT)
        wait_until_gone(left, _HANGUP_SECONDS)
        deadline = time.monotonic() + _KILL_SECONDS
        while (stubborn := left()) and time.monotonic() < deadline:
            members.signal(stubborn, signal.SIGKILL)
            wait_until_gone(left, 0.1)


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
