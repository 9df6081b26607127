"""Talking about a stack from outside: is it there, stop it, start it in the background."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO

from libs.cli.stack.leftovers import end_leftovers
from libs.cli.stack.lock import AlreadyRunningError, exclusive
from libs.cli.stack.paths import StackPaths
from libs.cli.stack.processes import ProcessIdentity, is_alive, send
from libs.cli.stack.sandboxes import sandbox_stopper
from libs.cli.stack.state import ProcessRecord, Stack, State, load_state, save_state
from libs.runtime.port import DriverError

_POLL_S = 0.05
# A supervisor is gone within 10 s of a signal; one that is not is stuck.
_STOP_TIMEOUT_S = 15.0
_SANDBOX_GRACE_S = 2.0
_SANDBOX_TIMEOUT_S = 10.0
SUPERVISOR_LOG = "supervisor.log"


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One line of `devpocket status`."""

    name: str
    pid: int | None
    port: int | None
    state: State


def status_of(stack: Stack) -> list[ProcessStatus]:
    """What is really there now: a recorded process that no longer runs counts as stopped."""
    return [
        ProcessStatus(item.name, item.pid, item.port, item.state)
        if item.identity is not None and is_alive(item.identity)
        else ProcessStatus(
            item.name, None, item.port, State.RESTARTING if stack.alive and _expected(item.state) else State.STOPPED
        )
        for item in stack.state.processes
    ]


def _expected(state: State) -> bool:
    return state in {State.STARTING, State.RUNNING, State.RESTARTING}


@dataclass(frozen=True, slots=True)
class Stopped:
    """What `stop_stack` found. `leftovers` had lost their supervisor, or it was stuck."""

    was_running: bool
    leftovers: list[str]


class StopError(Exception):
    """Something could not be ended; the text says what."""


def stop_stack(stack: Stack) -> Stopped:
    """End the stack and its sandboxes. Raises StopError."""
    was_running = send(stack.state.supervisor, signal.SIGTERM)
    if was_running and _wait_gone(stack.state.supervisor):
        return Stopped(was_running=True, leftovers=[])
    if was_running:
        send(stack.state.supervisor, signal.SIGKILL)
        _wait_gone(stack.state.supervisor)
    with _holding(stack):
        leftovers = end_leftovers(stack.state)
        if leftovers or stack.state.state is not State.STOPPED:
            _stop_sandboxes(stack)
            save_state(stack.paths.state, replace(stack.state, state=State.STOPPED, processes=_all_stopped(stack)))
    return Stopped(was_running, leftovers)


def _wait_gone(supervisor: ProcessIdentity) -> bool:
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        if not is_alive(supervisor):
            return True
        time.sleep(_POLL_S)
    return False


@contextmanager
def _holding(stack: Stack) -> Iterator[None]:
    """Nobody may start the stack while its remains are being removed."""
    try:
        with exclusive(stack.paths.lock):
            yield
    except AlreadyRunningError as error:
        raise StopError("a stack is being started there right now; try again in a moment") from error


def _stop_sandboxes(stack: Stack) -> None:
    try:
        asyncio.run(_sandboxes_within_timeout(stack))
    except (DriverError, TimeoutError) as error:
        raise StopError(f"the sandboxes could not be ended: {error or 'not in time'}") from error


async def _sandboxes_within_timeout(stack: Stack) -> None:
    async with asyncio.timeout(_SANDBOX_TIMEOUT_S):
        await sandbox_stopper(stack.environment)(_SANDBOX_GRACE_S)


def _all_stopped(stack: Stack) -> tuple[ProcessRecord, ...]:
    return tuple(replace(item, state=State.STOPPED, identity=None) for item in stack.state.processes)


class DetachedStartError(Exception):
    """The background stack did not come up; the text says why."""


def start_detached(argv: Sequence[str], paths: StackPaths, show: Callable[[str], None]) -> None:
    """Run `argv` (an attached `up`) in a session of its own and follow it until its stack is ready.

    `show` gets what it prints, line by line. Raises DetachedStartError.
    """
    paths.create()
    log = paths.logs / SUPERVISOR_LOG
    with log.open("wb") as output, log.open("rb") as progress:
        child = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _follow(child, paths, progress, show)
        except KeyboardInterrupt:
            child.terminate()
            raise


def _follow(child: subprocess.Popen[bytes], paths: StackPaths, progress: BinaryIO, show: Callable[[str], None]) -> None:
    while True:
        # Asked before reading, so that what it printed before that answer is shown.
        ended = child.poll() is not None
        ready = _is_ready(paths, child.pid)
        for line in progress:
            show(line.decode(errors="replace").rstrip("\n"))
        if ready:
            return
        if ended:
            raise DetachedStartError(f"the stack did not start; logs are in {paths.logs}")
        time.sleep(_POLL_S)


def _is_ready(paths: StackPaths, supervisor_pid: int) -> bool:
    state = load_state(paths.state)
    return state is not None and state.supervisor.pid == supervisor_pid and state.state is State.RUNNING
