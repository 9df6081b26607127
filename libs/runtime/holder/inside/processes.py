"""Ending a shell with everything it started in its session."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from libs.runtime.holder.inside.loop import Loop

_HANGUP_S = 0.5
_KILL_EVERY_S = 0.05
_KILLS = 40
# Where these are in a process's stat line, counted after its name.
_STATE, _SESSION = 0, 3


def end_session(loop: Loop, session: int, done: Callable[[], None]) -> None:
    """Hang up, give half a second, then kill for as long as anybody is left, at most two seconds."""
    _signal(session, signal.SIGHUP)
    _signal(session, signal.SIGCONT)
    _wait(loop, session, int(_HANGUP_S / _KILL_EVERY_S), lambda: _kill(loop, session, _KILLS, done), done)


def _wait(loop: Loop, session: int, tries: int, then: Callable[[], None], done: Callable[[], None]) -> None:
    if not members(session):
        done()
    elif tries == 0:
        then()
    else:
        loop.later(_KILL_EVERY_S, lambda: _wait(loop, session, tries - 1, then, done))


def _kill(loop: Loop, session: int, tries: int, done: Callable[[], None]) -> None:
    if tries == 0 or not _signal(session, signal.SIGKILL):
        done()
    else:
        loop.later(_KILL_EVERY_S, lambda: _kill(loop, session, tries - 1, done))


def _signal(session: int, number: signal.Signals) -> bool:
    pids = members(session)
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return bool(pids)


def members(session: int) -> list[int]:
    """What lives of the session."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/" + name + "/stat", "rb") as file:
                words = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(words[_SESSION]) == session and words[_STATE] not in (b"Z", b"X"):
            found.append(int(name))
    return found
