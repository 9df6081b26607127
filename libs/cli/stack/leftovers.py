"""Ends what a crashed stack has left behind, and nothing else."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

from libs.cli.stack.processes import ProcessIdentity, session_members, signal_session
from libs.cli.stack.state import StackState

_GRACE_S = 5.0
# Until the kernel has taken a killed process's ports and locks away.
_KILLED_S = 2.0
_POLL_S = 0.05


def end_leftovers(state: StackState, grace_seconds: float = _GRACE_S) -> list[str]:
    """Names of the processes that were still there. SIGTERM first; SIGKILL for what remains after `grace_seconds`."""
    found = {item.name: item.identity for item in state.processes if item.identity and session_members(item.identity)}
    identities = list(found.values())
    _signal_and_wait(identities, signal.SIGTERM, grace_seconds)
    _signal_and_wait(identities, signal.SIGKILL, _KILLED_S)
    return list(found)


def _signal_and_wait(identities: Sequence[ProcessIdentity], number: signal.Signals, timeout_seconds: float) -> None:
    for identity in identities:
        signal_session(identity, number)
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline and any(session_members(identity) for identity in identities):
        time.sleep(_POLL_S)
