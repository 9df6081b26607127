"""One supervised process: started, watched, started again when it dies, replaced by a successor, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from libs.cli.stack.console import Reporter
from libs.cli.stack.incarnation import Incarnation
from libs.cli.stack.link import listener_on
from libs.cli.stack.logfiles import LogFile
from libs.cli.stack.probes import waking
from libs.cli.stack.specs import ProcessSpec, Renewal, RenewalError
from libs.cli.stack.state import ProcessRecord, State

_READY_POLL_S = 0.05
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 5.0
# A process that ran this long has recovered: its next death is a new story.
_STABLE_AFTER_S = 30.0
# A process that cannot start for a wrong setting says so and ends; waiting for the whole timeout would only hide it.
_MAX_DEATHS_WHILE_STARTING = 3
_KILLED_WAIT_S = 2.0
_SUCCESSOR_TIMEOUT_S = 60.0
# More than a service takes with all that it waits for.
_LEAVING_TIMEOUT_S = 60.0


class ComponentFailedError(Exception):
    """A part of the stack did not come up. `log_tail` holds the last lines it wrote."""

    def __init__(self, message: str, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.log_tail = log_tail


@dataclass(frozen=True, slots=True)
class Replacement:
    """How it went, in seconds: until the successor served, then until the old one had ended."""

    ready_s: float
    leaving_s: float
    was_killed: bool = False


class ManagedProcess:
    """Keeps one process alive. `on_change` gets its record whenever something about it changes."""

    def __init__(
        self, spec: ProcessSpec, log: LogFile, reporter: Reporter, on_change: Callable[[ProcessRecord], None]
    ) -> None:
        self.spec = spec
        self._log = log
        self._reporter = reporter
        self._on_change = on_change
        self._record = ProcessRecord(spec.name, spec.port)
        self._listener: socket.socket | None = None
        self._current: Incarnation | None = None
        # Started, and not yet serving.
        self._successor: Incarnation | None = None
        self._leaving: set[Incarnation] = set()
        self._replaced = asyncio.Event()
        self._replacing = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._deaths = 0
        self._last_end = ""
        self._was_ready = False

    async def start(self, timeout_seconds: float) -> None:
        """Start it and wait until it works. Raises ComponentFailedError."""
        started = time.monotonic()
        await self.spec.prepare()
        reason: str | None = "it was not asked yet"
        try:
            async with asyncio.timeout(timeout_seconds):
                self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.spec.name}")
                while (reason := await self._why_not_ready()) is not None:
                    if self._deaths >= _MAX_DEATHS_WHILE_STARTING:
                        raise ComponentFailedError(
                            f"{self.spec.name} does not start: it {self._last_end}", self._log.tail
                        )
                    await asyncio.sleep(_READY_POLL_S)
        except TimeoutError as error:
            raise self._was_not_ready(timeout_seconds, reason) from error
        self._was_ready = True
        self._set(replace(self._record, state=State.RUNNING))
        self._reporter.came_up(self.spec.name, time.monotonic() - started)

    async def replace(self, timeout_seconds: float = _SUCCESSOR_TIMEOUT_S) -> Replacement:
        """Have a successor take over, and wait until the old one has ended.

        Raises ComponentFailedError: then the old one goes on as if nothing had been.
        """
        async with self._replacing:
            began = time.monotonic()
            old = self._current
            if old is None or old.identity is None or old.has_ended or self._stopping.is_set():
                raise ComponentFailedError(f"{self.spec.name} does not run right now")
            if self.spec.renew is not None:
                await self._renew(self.spec.renew, old.identity.pid)
                return Replacement(time.monotonic() - began, 0.0)
            await self._succeed(timeout_seconds)
            ready_s = time.monotonic() - began
            was_killed = await self._until_gone(old)
            return Replacement(ready_s, time.monotonic() - began - ready_s, was_killed)

    async def _renew(self, renew: Renewal, pid: int) -> None:
        try:
            await renew(pid)
        except RenewalError as error:
            raise ComponentFailedError(str(error)) from error

    async def _succeed(self, timeout_seconds: float) -> None:
        """The old one may die meanwhile; then the successor is the current one already."""
        successor = self._successor = self._incarnation()
        try:
            await self._until_it_serves(successor, timeout_seconds)
            self._promote(successor)
        except BaseException:
            successor.kill()
            raise
        finally:
            self._successor = None

    async def _until_it_serves(self, successor: Incarnation, timeout_seconds: float) -> None:
        reason: str | None = "it was not asked yet"
        try:
            await successor.start()
            async with asyncio.timeout(timeout_seconds):
                while (reason := await successor.why_not_ready()) is not None and not successor.has_ended:
                    if self._stopping.is_set():
                        raise ComponentFailedError("the stack is being stopped")
                    await asyncio.sleep(_READY_POLL_S)
                await successor.accept()
        except TimeoutError as error:
            raise self._was_not_ready(timeout_seconds, reason) from error
        except OSError as error:
            raise ComponentFailedError(f"the new {self.spec.name} could not be started: {error}") from error
        if successor.has_ended:
            raise ComponentFailedError(f"the new {self.spec.name} {successor.how_it_ended}", self._log.tail)

    def _promote(self, successor: Incarnation) -> None:
        old, self._current = self._current, successor
        if old is not None and old is not successor:
            self._leaving.add(old)
            old.relieve()
            self._replaced.set()
        self._set(
            replace(self._record, state=State.RUNNING, identity=successor.identity, restarts=self._record.restarts + 1)
        )

    async def _until_gone(self, old: Incarnation) -> bool:
        """True when it had to be killed."""
        try:
            if old.ended is None:
                return False
            done, _ = await asyncio.wait([old.ended], timeout=_LEAVING_TIMEOUT_S)
            if not done:
                old.kill()
                await asyncio.wait([old.ended], timeout=_KILLED_WAIT_S)
            return not done
        finally:
            self._leaving.discard(old)

    def _on_leaving(self, who: Incarnation) -> None:
        """Somebody outside has sent it a signal."""
        if who is self._current and not self._stopping.is_set():
            task = asyncio.create_task(self._replace_quietly(who))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _replace_quietly(self, who: Incarnation) -> None:
        async with self._replacing:
            # A successor may have been on its way.
            if who is not self._current or self._stopping.is_set():
                return
            self._reporter.notice(f"{self.spec.name} was asked to end; another one takes over")
            began = time.monotonic()
            try:
                await self._succeed(_SUCCESSOR_TIMEOUT_S)
            except ComponentFailedError as error:
                # The old one will end all the same; then it is a death like any other.
                self._reporter.problem(str(error), error.log_tail)
                return
            self._reporter.notice(f"{self.spec.name}: a new one serves, {time.monotonic() - began:.1f} s later")
            await self._until_gone(who)

    def drain(self) -> None:
        """Make it take no new connections, where it can; `stop` follows."""
        if self.spec.drain_signal is not None:
            self._end(self.spec.drain_signal)

    async def stop(self, grace_seconds: float) -> None:
        """A polite signal, then after `grace_seconds` SIGKILL for it and whatever is left in its session."""
        self._end(self.spec.stop_signal)
        if self._keeper is not None:
            tasks = [self._keeper, *(item.ended for item in self._incarnations() if item.ended is not None)]
            async with waking(self.spec.port) if self.spec.wake_to_stop else contextlib.nullcontext():
                _, pending = await asyncio.wait(tasks, timeout=grace_seconds)
            if pending:
                self.kill()
                await asyncio.wait(tasks, timeout=_KILLED_WAIT_S)
        self._close_listener()
        self._log.close()

    def _end(self, number: signal.Signals) -> None:
        self._stopping.set()
        if self._current is not None and not self._current.has_ended:
            self._set(replace(self._record, state=State.STOPPING))
        for item in self._incarnations():
            item.signal(number)

    def kill(self) -> None:
        """SIGKILL at once."""
        self._stopping.set()
        for item in self._incarnations():
            item.kill()

    def _incarnations(self) -> list[Incarnation]:
        return [item for item in (self._current, self._successor, *self._leaving) if item is not None]

    async def _why_not_ready(self) -> str | None:
        return "it has not started yet" if self._current is None else await self._current.why_not_ready()

    def _was_not_ready(self, seconds: float, reason: str | None) -> ComponentFailedError:
        return ComponentFailedError(f"{self.spec.name} was not ready after {seconds:.0f} s: {reason}", self._log.tail)

    async def _keep(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self._stopping.is_set():
            started = time.monotonic()
            await self._run_until_death()
            if self._stopping.is_set():
                break
            if time.monotonic() - started > _STABLE_AFTER_S:
                backoff_s = _FIRST_BACKOFF_S
            self._deaths += 1
            # Whoever connects now should not wait here: the gateway may know another replica.
            self._close_listener()
            self._set(replace(self._record, state=State.RESTARTING, restarts=self._record.restarts + 1, identity=None))
            if self._was_ready:
                self._reporter.problem(f"{self.spec.name} {self._last_end}; starting it again in {backoff_s:.1f} s")
            await self._pause(backoff_s)
            backoff_s = min(backoff_s * 2, _LONGEST_BACKOFF_S)
        self._set(replace(self._record, state=State.STOPPED, identity=None))

    async def _run_until_death(self) -> None:
        """One process, and those that take over from it."""
        try:
            current = self._current = self._incarnation()
            await current.start()
        except OSError as error:
            self._log.write(f"could not be started: {error}".encode())
            self._last_end = "could not be started"
            return
        if self._stopping.is_set():
            current.signal(self.spec.stop_signal)
        self._set(replace(self._record, identity=current.identity))
        watcher = asyncio.create_task(self._announce_return()) if self._was_ready else None
        await current.accept()
        while not await self._has_died(current):
            assert self._current is not None
            current = self._current
        self._last_end = current.how_it_ended
        if watcher is not None:
            watcher.cancel()

    async def _has_died(self, current: Incarnation) -> bool:
        """Waits. False when another one has taken over."""
        assert current.ended is not None
        replaced = asyncio.create_task(self._replaced.wait())
        await asyncio.wait([current.ended, replaced], return_when=asyncio.FIRST_COMPLETED)
        replaced.cancel()
        self._replaced.clear()
        if self._current is not current:
            return False
        successor = self._successor
        if successor is None or successor.has_ended or self._stopping.is_set():
            return True
        # Not ready yet, but nobody else is there. Meanwhile, who connects waits.
        self._current = successor
        self._set(replace(self._record, state=State.RESTARTING, identity=successor.identity))
        return False

    def _incarnation(self) -> Incarnation:
        if self.spec.ready_at is not None and self._listener is None:
            self._listener = listener_on(self.spec.port)
        return Incarnation(self.spec, self._log, self._listener, self._on_leaving)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _announce_return(self) -> None:
        """After a restart: say when it works again."""
        started = time.monotonic()
        while await self._why_not_ready() is not None:  # noqa: ASYNC110 - another process sets no events
            await asyncio.sleep(_READY_POLL_S)
        self._set(replace(self._record, state=State.RUNNING))
        self._reporter.notice(f"{self.spec.name} works again, {time.monotonic() - started:.1f} s after its restart")

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    def _set(self, record: ProcessRecord) -> None:
        self._record = record
        self._on_change(record)
