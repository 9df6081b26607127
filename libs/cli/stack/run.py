"""`devpocket up` without its command line: checks, a supervisor, signals, a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
from collections.abc import Mapping

from libs.cli.stack.certificates import CertificateError
from libs.cli.stack.console import Reporter
from libs.cli.stack.control import taking_orders
from libs.cli.stack.credentials import load_or_create
from libs.cli.stack.infrastructure.database import ProvisioningError
from libs.cli.stack.leftovers import end_leftovers
from libs.cli.stack.lock import AlreadyRunningError, exclusive, is_held
from libs.cli.stack.managed import ComponentFailedError
from libs.cli.stack.paths import StackPaths, write_private
from libs.cli.stack.plan import StackOptions, StackPlan, make_plan
from libs.cli.stack.ports import LOOPBACK, NoFreePortError, is_free
from libs.cli.stack.processes import identify
from libs.cli.stack.programs import MissingProgramError
from libs.cli.stack.sandboxes import sandbox_stopper
from libs.cli.stack.settings import SettingError, operator_settings
from libs.cli.stack.state import StackState, State, StateFileError, load_state
from libs.cli.stack.supervisor import START_TIMEOUT_S, Supervisor

# Enough for 10,000 terminals. Where the limit is a thousand million, as in some containers, programs that close every
# possible descriptor take minutes to start.
_OPEN_FILES = 65_536
# Who signals a whole process group reaches us twice: directly, and through make, which passes it on.
_SAME_SIGNAL_S = 0.5


class StartRefusedError(Exception):
    """The stack is not started; the text says why and what to do."""


def run_stack(
    options: StackOptions,
    reporter: Reporter,
    environment: Mapping[str, str] = os.environ,
    *,
    detached: bool = False,
    start_timeout_seconds: float = START_TIMEOUT_S,
) -> int:
    """Run a stack until a signal ends it. Exit code 0 after a stop that was asked for, 1 when it did not come up.

    Raises StartRefusedError before anything has been started.
    """
    paths = options.paths
    try:
        paths.create()
        with exclusive(paths.lock):
            plan, state = _prepare(options, reporter, environment)
            runner = _run(plan, state, paths, reporter, detached=detached, start_timeout_seconds=start_timeout_seconds)
            # Who starts it again, once the lock is free, gets the same ports.
            with contextlib.closing(plan.ports):
                return asyncio.run(runner)
    except AlreadyRunningError as error:
        raise StartRefusedError(_already_running(paths)) from error
    except PermissionError as error:
        raise StartRefusedError(f"{error.filename or paths.root} may not be used: {error.strerror}") from error


def refuse_if_running(paths: StackPaths) -> None:
    """Raises StartRefusedError when a supervisor lives on that data folder."""
    if is_held(paths.lock):
        raise StartRefusedError(_already_running(paths))


def _already_running(paths: StackPaths) -> str:
    state = load_state(paths.state)
    where = f" at {state.url}" if state is not None else ""
    return (
        f"a stack already runs{where} with its data in {paths.root}; "
        "stop it with `devpocket down`, or start another with --data-dir and --port"
    )


def _prepare(options: StackOptions, reporter: Reporter, environment: Mapping[str, str]) -> tuple[StackPlan, StackState]:
    """What has to be right before the first process starts."""
    paths = options.paths
    try:
        previous = load_state(paths.state)
    except StateFileError as error:
        raise StartRefusedError(str(error)) from error
    if previous is not None:
        for name in end_leftovers(previous):
            reporter.notice(f"ended {name}, left behind by a stack that crashed")
    if not is_free(options.port):
        raise StartRefusedError(
            f"port {options.port} on {LOOPBACK} is in use by another program; "
            "stop that program, or choose another port with --port"
        )
    _raise_open_files()
    plan = _plan(options, environment, previous)
    if plan.certificate is not None:
        reporter.notice(str(plan.certificate))
    write_private(paths.environment, json.dumps(plan.settings, indent=2))
    supervisor = identify(os.getpid())
    assert supervisor is not None, "a process can always see itself"
    state = StackState(
        url=plan.url,
        port=options.port,
        state=State.STARTING,
        supervisor=supervisor,
        connections=plan.connections,
    )
    return plan, state


def _plan(options: StackOptions, environment: Mapping[str, str], previous: StackState | None) -> StackPlan:
    try:
        operator = operator_settings(environment, options.working_dir / ".env")
        credentials = load_or_create(options.paths.secrets)
        return make_plan(options, operator, credentials, previous.ports() if previous else {})
    except (CertificateError, MissingProgramError, NoFreePortError, SettingError) as error:
        raise StartRefusedError(str(error)) from error


def _raise_open_files() -> None:
    """Every terminal takes several descriptors; the usual soft limit of 1024 is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _OPEN_FILES)), hard))


async def _run(
    plan: StackPlan,
    state: StackState,
    paths: StackPaths,
    reporter: Reporter,
    *,
    detached: bool,
    start_timeout_seconds: float,
) -> int:
    supervisor = Supervisor(plan, state, paths, reporter, sandbox_stopper(plan.settings))
    stop_asked = _watch_signals(supervisor, reporter, detached=detached)
    failure = await _start(supervisor, stop_asked, reporter, start_timeout_seconds)
    if failure is None:
        async with taking_orders(paths.control, supervisor):
            # Who is told that it is ready may give an order at once.
            if not stop_asked.is_set():
                supervisor.announce_ready()
            await stop_asked.wait()
    await supervisor.stop(failure)
    if failure is None:
        reporter.notice("stopped")
    return 0 if failure is None else 1


def _watch_signals(supervisor: Supervisor, reporter: Reporter, *, detached: bool) -> asyncio.Event:
    """The first signal asks for a stop, the second kills. A stack that is detached, or started with nohup, has no
    terminal to lose."""
    stop_asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    asked_at = 0.0

    def on_signal() -> None:
        nonlocal asked_at
        if not stop_asked.is_set():
            reporter.notice("stopping (again to kill at once)")
            asked_at = loop.time()
            stop_asked.set()
        elif loop.time() - asked_at > _SAME_SIGNAL_S:
            supervisor.kill()

    keep_on_hangup = detached or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, (lambda: None) if keep_on_hangup else on_signal)
    return stop_asked


async def _start(
    supervisor: Supervisor, stop_asked: asyncio.Event, reporter: Reporter, timeout_seconds: float
) -> str | None:
    """Start, unless a signal comes first. The reason when it failed."""
    starting = asyncio.create_task(supervisor.start(timeout_seconds))
    stopping = asyncio.create_task(stop_asked.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return None
    try:
        starting.result()
    except ComponentFailedError as error:
        reporter.problem(str(error), error.log_tail)
        return str(error)
    except ProvisioningError as error:
        reporter.problem(str(error))
        return str(error)
    return None
