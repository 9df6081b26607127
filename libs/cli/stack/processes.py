"""Which process is ours, for certain: a pid alone is not enough, because pids are used again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# Positions in /proc/<pid>/stat after the command name, see proc(5).
_STATE, _SESSION, _START_TICKS = 0, 3, 19
_ENDED_STATES = "ZX"


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process and no other: `start_ticks` counts from boot `boot_id`, so a reused pid or a reboot shows."""

    pid: int
    start_ticks: int
    boot_id: str
    executable: str


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of a live process of ours; None when it has ended or belongs to somebody else."""
    stat = _stat(pid)
    if stat is None or stat[_STATE] in _ENDED_STATES:
        return None
    try:
        executable = os.readlink(_PROC / str(pid) / "exe")
    except OSError:
        return None
    return ProcessIdentity(pid, int(stat[_START_TICKS]), boot_id(), executable)


def boot_id() -> str:
    """Changes with every boot of the machine."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether exactly this process still runs; a zombie does not."""
    now = identify(identity.pid)
    return now is not None and (now.start_ticks, now.boot_id) == (identity.start_ticks, identity.boot_id)


def session_members(identity: ProcessIdentity) -> list[int]:
    """The process and what runs in its session (each process of a stack leads its own), leader first.

    When the leader is gone its session may live on, as nginx's workers do. The kernel does not give away a pid that
    still names a session, so members are ours as long as no other process has that pid; the executable must match too.
    """
    if identity.boot_id != boot_id():
        return []
    if is_alive(identity):
        others = [pid for pid in _session(identity.pid) if pid != identity.pid]
        return [identity.pid, *others]
    stat = _stat(identity.pid)
    # Ours may still be there as a zombie, when init is slow to collect it.
    if stat is not None and int(stat[_START_TICKS]) != identity.start_ticks:
        return []
    return [pid for pid in _session(identity.pid) if _executable(pid) == identity.executable]


def send(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal the process itself. False when it is gone."""
    if not is_alive(identity):
        return False
    return _kill(identity.pid, number)


def signal_session(identity: ProcessIdentity, number: signal.Signals) -> None:
    """Signal the process and everything left in its session."""
    for pid in session_members(identity):
        _kill(pid, number)


def _kill(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _session(session: int) -> Iterator[int]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            stat = _stat(int(entry.name))
            if stat is not None and int(stat[_SESSION]) == session and stat[_STATE] not in _ENDED_STATES:
                yield int(entry.name)


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The command name stands in parentheses and may itself hold spaces and parentheses.
    return text.rpartition(")")[2].split()


def _executable(pid: int) -> str | None:
    try:
        return os.readlink(_PROC / str(pid) / "exe")
    except OSError:
        return None


def kill_group(leader: int) -> None:
    """SIGKILL for the process group of a child of ours that leads one; fine when it is empty."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
