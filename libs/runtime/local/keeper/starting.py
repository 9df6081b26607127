"""Starting a login shell in a workspace, as the parent that will be told how it ends. Blocks."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from libs.runtime.local.enter import Entered, enter
from libs.runtime.local.layout import Layout
from libs.runtime.local.locating import locate_with_spec
from libs.runtime.local.processes import ProcessInfo
from libs.runtime.local.records import RunRecord
from libs.runtime.port import RuntimeUnavailableError, TerminalSize

_START_SECONDS = 10.0
_WORDS_BYTES = 500


@dataclass(frozen=True, slots=True)
class StartedShell:
    """A shell whose terminal's master is `terminal`; `pid` is the child to wait for."""

    pid: int
    terminal: int
    run: RunRecord
    leader: ProcessInfo


def start_login_shell(layout: Layout, environment_id: str, size: TerminalSize) -> StartedShell:
    """Raises WorkspaceNotFoundError, WorkspaceNotRunningError, RuntimeUnavailableError."""
    run, spec = locate_with_spec(layout, environment_id)
    try:
        entered = enter(run, spec, layout.workspace(environment_id), None, tty=True, size=size, env={})
    except OSError as error:
        raise RuntimeUnavailableError(f"No process could be started: {error}", reason="ExecFailed") from error
    try:
        leader = entered.leader() if _is_readable(entered.status) else None
        if leader is None:
            _give_up(entered)
    finally:
        os.close(entered.status)
        os.close(entered.handle)
        entered.anchor.release()
    return StartedShell(entered.pid, entered.stdout, run, leader)


def _is_readable(status: int) -> bool:
    readable = select.poll()
    readable.register(status, select.POLLIN)
    return bool(readable.poll(_START_SECONDS * 1000))


def _give_up(entered: Entered) -> NoReturn:
    with suppress(OSError):
        signal.pidfd_send_signal(entered.handle, signal.SIGKILL)
    os.waitpid(entered.pid, 0)
    words = b""
    with suppress(OSError):
        words = os.read(entered.stdout, _WORDS_BYTES)
    os.close(entered.stdout)
    raise RuntimeUnavailableError(
        f"The process could not be started: {words.decode(errors='replace').strip() or 'no answer'}. "
        "The environment may have reached its limit of processes; stop some, or restart it.",
        reason="ExecFailed",
    )
