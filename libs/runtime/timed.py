"""Both halves of a driver with a clock around each call, whichever driver it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from libs.runtime.holder.held import HoldTerms, find_shell, start_shell
from libs.runtime.holder.shells import Shell
from libs.runtime.port import (
    ByteStream,
    DriverError,
    ExecRuntime,
    ExecStream,
    ListeningPort,
    LogLine,
    ObservedWorkspace,
    RuntimeUnavailableError,
    TerminalSize,
    WorkspaceRef,
    WorkspaceRejectedError,
    WorkspaceRuntime,
    WorkspaceSpec,
    WorkspaceStats,
)

Observe = Callable[[str, str, float], None]
"""Hears of each call: the operation, its outcome, and how many seconds it took.

Outcomes: `ok`; `unavailable` (the runtime cannot be reached or is overloaded); `rejected` (it refuses the spec);
`refused` (the workspace is not there, or not in a state for it); `cancelled` (we gave up); `failed` (anything else).
"""


class TimedWorkspaces:
    """WorkspaceRuntime. Watches are not timed: they last as long as they may."""

    def __init__(self, driver: WorkspaceRuntime, observe: Observe) -> None:
        self._driver = driver
        self._observe = observe

    async def open(self) -> None:
        """See the port."""
        with _timed(self._observe, "open"):
            await self._driver.open()

    async def close(self) -> None:
        """See the port."""
        await self._driver.close()

    async def check(self) -> str:
        """See the port."""
        with _timed(self._observe, "check"):
            return await self._driver.check()

    async def ensure(self, spec: WorkspaceSpec) -> ObservedWorkspace:
        """See the port."""
        with _timed(self._observe, "ensure"):
            return await self._driver.ensure(spec)

    async def stop(self, ref: WorkspaceRef, *, grace_seconds: float = 5.0) -> None:
        """See the port."""
        with _timed(self._observe, "stop"):
            await self._driver.stop(ref, grace_seconds=grace_seconds)

    async def delete(self, ref: WorkspaceRef) -> None:
        """See the port."""
        with _timed(self._observe, "delete"):
            await self._driver.delete(ref)

    async def inspect(self, ref: WorkspaceRef) -> ObservedWorkspace | None:
        """See the port."""
        with _timed(self._observe, "inspect"):
            return await self._driver.inspect(ref)

    async def list(self) -> Sequence[ObservedWorkspace]:
        """See the port."""
        with _timed(self._observe, "list"):
            return await self._driver.list()

    def watch(self) -> AsyncIterator[ObservedWorkspace]:
        """See the port."""
        return self._driver.watch()

    async def stats(self, ref: WorkspaceRef) -> WorkspaceStats:
        """See the port."""
        with _timed(self._observe, "stats"):
            return await self._driver.stats(ref)


class TimedExec:
    """ExecRuntime, and ShellRuntime for a driver of either kind. Only beginnings are timed: streams last."""

    def __init__(self, driver: ExecRuntime, observe: Observe) -> None:
        self._driver = driver
        self._observe = observe

    async def open(self) -> None:
        """See the port."""
        with _timed(self._observe, "open"):
            await self._driver.open()

    async def close(self) -> None:
        """See the port."""
        await self._driver.close()

    async def exec(
        self,
        ref: WorkspaceRef,
        argv: Sequence[str] | None = None,
        *,
        tty: bool = True,
        size: TerminalSize = TerminalSize(),  # noqa: B008 - frozen
        env: Mapping[str, str] | None = None,
    ) -> ExecStream:
        """See the port."""
        with _timed(self._observe, "exec"):
            return await self._driver.exec(ref, argv, tty=tty, size=size, env=env)

    def logs(
        self, ref: WorkspaceRef, *, follow: bool = False, tail: int | None = None, since: datetime | None = None
    ) -> AsyncIterator[LogLine]:
        """See the port."""
        return self._driver.logs(ref, follow=follow, tail=tail, since=since)

    async def connect(self, ref: WorkspaceRef, port: int) -> ByteStream:
        """See the port."""
        with _timed(self._observe, "connect"):
            return await self._driver.connect(ref, port)

    async def ports(self, ref: WorkspaceRef) -> Sequence[ListeningPort]:
        """See the port."""
        with _timed(self._observe, "ports"):
            return await self._driver.ports(ref)

    async def start_shell(self, ref: WorkspaceRef, session_id: str, size: TerminalSize, terms: HoldTerms) -> Shell:
        """See ShellRuntime."""
        with _timed(self._observe, "start_shell"):
            return await start_shell(self._driver, ref, session_id, size, terms)

    async def find_shell(self, ref: WorkspaceRef, session_id: str) -> Shell:
        """See ShellRuntime."""
        with _timed(self._observe, "find_shell"):
            return await find_shell(self._driver, ref, session_id)


@contextmanager
def _timed(observe: Observe, operation: str) -> Iterator[None]:
    started = time.perf_counter()
    outcome = "failed"
    try:
        yield
        outcome = "ok"
    except RuntimeUnavailableError:
        outcome = "unavailable"
        raise
    except WorkspaceRejectedError:
        outcome = "rejected"
        raise
    except DriverError:
        outcome = "refused"
        raise
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    finally:
        observe(operation, outcome, time.perf_counter() - started)
