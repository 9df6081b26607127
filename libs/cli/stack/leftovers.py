"""Ends what a crashed stack has left behind, and nothing else."""

from __future__ import annotations

import signal
import time

from libs.cli.stack.processes import is_alive, kill_session, send, session_members
from libs.cli.stack.state import ProcessRecord, StackState

_GRACE_S = 5.0
_POLL_S = 0.05


def end_leftovers(state: StackState, grace_seconds: float = _GRACE_S) -> list[str]:
    """Names of the processes that were still there. SIGTERM first; SIGKILL for what remains after `grace_seconds`."""
    records = [item for item in state.processes if item.identity and session_members(item.identity)]
    for record in records:
        _signal(record, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while time.monotonic() < deadline and any(_there(record) for record in records):
        time.sleep(_POLL_S)
    for record in records:
        if record.identity is not None:
            kill_session(record.identity)
    return [record.name for record in records]


def _there(record: ProcessRecord) -> bool:
    return record.identity is not None and is_alive(record.identity)


def _signal(record: ProcessRecord, number: signal.Signals) -> None:
    if record.identity is not None:
        send(record.identity, number)
