"""Runs a stack: starts it stage by stage, keeps it up, stops it in the opposite order."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace

from libs.cli.stack.console import Reporter
from libs.cli.stack.logfiles import LogFile
from libs.cli.stack.managed import ComponentFailedError, ManagedProcess, Replacement
from libs.cli.stack.paths import StackPaths
from libs.cli.stack.plan import StackPlan
from libs.cli.stack.sandboxes import StopSandboxes
from libs.cli.stack.specs import ProcessSpec
from libs.cli.stack.state import ProcessRecord, StackState, State, save_state
from libs.runtime.port import DriverError

START_TIMEOUT_S = 60.0

# Together below 10 s, the time within which the whole stack is gone.
_GOODBYE_S = 1.5
_GATEWAY_GRACE_S = 0.5
_SERVICE_GRACE_S = 5.0
_SANDBOX_GRACE_S = 1.0
_SANDBOX_TIMEOUT_S = 1.8
_INFRASTRUCTURE_GRACE_S = 2.5


class RestartError(Exception):
    """A restart did not begin, or ended early; the text says why. `log_tail`: the last lines of whom it concerns."""

    def __init__(self, message: str, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.log_tail = log_tail


@dataclass(frozen=True, slots=True)
class Restarted:
    """A part that is new now."""

    name: str
    replacement: Replacement


class Supervisor:
    """One stack. `stop_sandboxes(grace_seconds)` ends the workspaces of the local runtime."""

    def __init__(
        self, plan: StackPlan, state: StackState, paths: StackPaths, reporter: Reporter, stop_sandboxes: StopSandboxes
    ) -> None:
        self._plan = plan
        self._state = replace(state, processes=tuple(_fresh(plan)))
        self._paths = paths
        self._reporter = reporter
        self._stop_sandboxes = stop_sandboxes
        self._restarting = False
        self._stages = [[self._manage(spec) for spec in stage.specs] for stage in plan.stages]
        self._save()

    async def start(self, timeout_seconds: float = START_TIMEOUT_S) -> None:
        """Start everything and wait until it works. Raises ComponentFailedError or ProvisioningError."""
        for stage in self._stages:
            starting = [asyncio.create_task(process.start(timeout_seconds)) for process in stage]
            try:
                await asyncio.wait(starting, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                # The others of a failed or cancelled stage need not go on waiting.
                for task in starting:
                    task.cancel()
                results = await asyncio.gather(*starting, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result

    def announce_ready(self) -> None:
        """Say that the stack works; first to people, then in the file that a detached start waits for."""
        self._reporter.ready(self._plan.url)
        self._update(replace(self._state, state=State.RUNNING))

    async def stop(self, reason: str | None = None) -> None:
        """End everything, the sandboxes included. `reason` is kept when the stack has failed."""
        self._update(replace(self._state, state=State.STOPPING, reason=reason))
        infrastructure, services, gateway = self._stages
        for process in gateway:
            process.drain()
        stopping = asyncio.create_task(_stop_all(services, _SERVICE_GRACE_S))
        # First the services say goodbye to their clients, then the gateway cuts off who is still there.
        await asyncio.wait([stopping], timeout=_GOODBYE_S)
        await _stop_all(gateway, _GATEWAY_GRACE_S)
        await stopping
        await self._end_sandboxes()
        await _stop_all(infrastructure, _INFRASTRUCTURE_GRACE_S)
        self._update(replace(self._state, state=State.FAILED if reason else State.STOPPED))

    async def restart(self, names: Sequence[str]) -> AsyncIterator[Restarted]:
        """One part after the other, without interruption: those named, a service with all its replicas, or all.

        Tells of each one when it is done. Raises RestartError: what was not reached goes on as it was.
        """
        if self._restarting:
            raise RestartError("another restart is under way; wait for it to end")
        if self._state.state is not State.RUNNING:
            raise RestartError(f"the stack is {self._state.state.value}")
        chosen = self._chosen(names)
        self._restarting = True
        try:
            for process in chosen:
                try:
                    yield Restarted(process.spec.name, await process.replace())
                except ComponentFailedError as error:
                    raise RestartError(f"{error}; the old {process.spec.name} goes on", error.log_tail) from error
        finally:
            self._restarting = False

    def _chosen(self, names: Sequence[str]) -> list[ManagedProcess]:
        _, services, gateway = self._stages
        # The gateway first: who is told to come back when a service changes comes through the new one.
        able = [*gateway, *services]
        unknown = [name for name in names if not any(_is_meant(name, process) for process in able)]
        if unknown:
            known = ", ".join(dict.fromkeys(part for process in able for part in _names_of(process)))
            raise RestartError(f"{', '.join(unknown)}: not a part that can be restarted; those are {known}")
        return [process for process in able if not names or any(_is_meant(name, process) for name in names)]

    def kill(self) -> None:
        """SIGKILL for every process at once; `stop` then has nothing to wait for."""
        for stage in self._stages:
            for process in stage:
                process.kill()

    async def _end_sandboxes(self) -> None:
        try:
            async with asyncio.timeout(_SANDBOX_TIMEOUT_S):
                await self._stop_sandboxes(_SANDBOX_GRACE_S)
        except TimeoutError:
            self._reporter.problem("some sandboxes did not end in time; the next start takes them over")
        except DriverError as error:
            self._reporter.problem(f"the sandboxes could not be ended: {error}")

    def _manage(self, spec: ProcessSpec) -> ManagedProcess:
        log = LogFile(self._paths.logs / f"{spec.name}.log", lambda line: self._reporter.log_line(spec.name, line))
        return ManagedProcess(spec, log, self._reporter, lambda record: self._update(self._state.with_process(record)))

    def _update(self, state: StackState) -> None:
        self._state = state
        self._save()

    def _save(self) -> None:
        save_state(self._paths.state, self._state)


def _fresh(plan: StackPlan) -> Iterable[ProcessRecord]:
    return (ProcessRecord(spec.name, spec.port) for stage in plan.stages for spec in stage.specs)


def _names_of(process: ManagedProcess) -> list[str]:
    """`terminal` and `terminal-2`."""
    name = process.spec.name
    return list(dict.fromkeys((re.sub(r"-\d+$", "", name), name)))


def _is_meant(name: str, process: ManagedProcess) -> bool:
    return name in _names_of(process)


async def _stop_all(processes: Sequence[ManagedProcess], grace_seconds: float) -> None:
    await asyncio.gather(*(process.stop(grace_seconds) for process in processes))
