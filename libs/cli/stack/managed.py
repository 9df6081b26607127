"""One supervised process: started, watched, started again when it dies, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

from libs.cli.stack.console import Reporter
from libs.cli.stack.logfiles import LogFile
from libs.cli.stack.probes import waking
from libs.cli.stack.processes import identify, kill_group
from libs.cli.stack.spawn import output_pipe, spawn
from libs.cli.stack.specs import ProcessSpec
from libs.cli.stack.state import ProcessRecord, State

_READ_BYTES = 64 << 10
_READY_POLL_S = 0.05
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 5.0
# A process that ran this long has recovered: its next death is a new story.
_STABLE_AFTER_S = 30.0
# A process that cannot start for a wrong setting says so and ends; waiting for the whole timeout would only hide it.
_MAX_DEATHS_WHILE_STARTING = 3
_KILLED_WAIT_S = 2.0


class ComponentFailedError(Exception):
    """A part of the stack did not come up. `log_tail` holds the last lines it wrote."""

    def __init__(self, message: str, log_tail: tuple[str, ...]) -> None:
        super().__init__(message)
        self.log_tail = log_tail


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
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
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
            message = f"{self.spec.name} was not ready after {timeout_seconds:.0f} s: {reason}"
            raise ComponentFailedError(message, self._log.tail) from error
        self._was_ready = True
        self._set(replace(self._record, state=State.RUNNING))
        self._reporter.came_up(self.spec.name, time.monotonic() - started)

    def drain(self) -> None:
        """Make it take no new connections, where it can; `stop` follows."""
        if self.spec.drain_signal is not None:
            self._end(self.spec.drain_signal)

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, then after `grace_seconds` SIGKILL for it and whatever is left in its session."""
        self._end(signal.SIGTERM)
        if self._keeper is not None:
            async with waking(self.spec.port) if self.spec.wake_to_stop else contextlib.nullcontext():
                done, _ = await asyncio.wait([self._keeper], timeout=grace_seconds)
            if not done:
                self.kill()
                await asyncio.wait([self._keeper], timeout=_KILLED_WAIT_S)
        self._log.close()

    def _end(self, number: signal.Signals) -> None:
        self._stopping.set()
        process = self._process
        if process is not None and process.returncode is None:
            self._set(replace(self._record, state=State.STOPPING))
            _signal(process, number)

    def kill(self) -> None:
        """SIGKILL at once."""
        self._stopping.set()
        if self._process is not None:
            kill_group(self._process.pid)

    async def _why_not_ready(self) -> str | None:
        process = self._process
        if process is None or process.returncode is not None:
            return f"it {_how_it_ended(process)}"
        return await self.spec.ready()

    async def _keep(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self._stopping.is_set():
            started = time.monotonic()
            await self._run_once()
            if self._stopping.is_set():
                break
            if time.monotonic() - started > _STABLE_AFTER_S:
                backoff_s = _FIRST_BACKOFF_S
            self._deaths += 1
            self._last_end = _how_it_ended(self._process)
            self._set(replace(self._record, state=State.RESTARTING, restarts=self._record.restarts + 1, identity=None))
            if self._was_ready:
                self._reporter.problem(f"{self.spec.name} {self._last_end}; starting it again in {backoff_s:.1f} s")
            await self._pause(backoff_s)
            backoff_s = min(backoff_s * 2, _LONGEST_BACKOFF_S)
        self._set(replace(self._record, state=State.STOPPED, identity=None))

    async def _run_once(self) -> None:
        async with output_pipe() as (output, reader):
            try:
                self._process = process = await spawn(
                    self.spec.argv, cwd=self.spec.cwd, environment=self.spec.environment, output=output
                )
            except OSError as error:
                self._log.feed(f"could not be started: {error}\n".encode())
                return
            finally:
                os.close(output)
            if self._stopping.is_set():
                _signal(process, signal.SIGTERM)
            self._set(replace(self._record, identity=identify(process.pid)))
            watcher = asyncio.create_task(self._announce_return()) if self._was_ready else None
            await self._read_until_end(process, reader)
            if watcher is not None:
                watcher.cancel()

    async def _read_until_end(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader) -> None:
        reading = asyncio.create_task(self._pump(reader))
        await process.wait()
        # Its children, such as nginx's workers, must not outlive it: they hold its port.
        kill_group(process.pid)
        await asyncio.wait([reading], timeout=_KILLED_WAIT_S)
        reading.cancel()
        self._log.flush()

    async def _pump(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_READ_BYTES):
            self._log.feed(data)

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


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _how_it_ended(process: asyncio.subprocess.Process | None) -> str:
    if process is None or process.returncode is None:
        return "has not started yet"
    if process.returncode < 0:
        return f"was ended by {signal.Signals(-process.returncode).name}"
    return f"ended with code {process.returncode}"
