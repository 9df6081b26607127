"""One run of a supervised program, from its start until it has ended and all it wrote is in its log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable

from libs.cli.stack.link import Link
from libs.cli.stack.logfiles import LineBuffer, LogFile
from libs.cli.stack.processes import ProcessIdentity, identify, kill_group
from libs.cli.stack.spawn import output_pipe, spawn
from libs.cli.stack.specs import ProcessSpec

_READ_BYTES = 64 << 10
_KILLED_WAIT_S = 2.0


class Incarnation:
    """`listener` is the address that one hands to the next, where the program can do that."""

    def __init__(
        self, spec: ProcessSpec, log: LogFile, listener: socket.socket | None, on_leaving: Callable[[Incarnation], None]
    ) -> None:
        self.identity: ProcessIdentity | None = None
        self.ended: asyncio.Task[None] | None = None
        self._spec = spec
        self._log = log
        self._link = Link(listener, lambda: on_leaving(self)) if listener is not None else None
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns once the process is there. Raises OSError."""
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.create_task(self._run(started), name=f"run {self._spec.name}")
        await started

    async def _run(self, started: asyncio.Future[None]) -> None:
        try:
            async with output_pipe() as (output, reader):
                try:
                    self._process = process = await self._spawn(output)
                except OSError as error:
                    started.set_exception(error)
                    return
                finally:
                    os.close(output)
                self.identity = identify(process.pid)
                if self._link is not None:
                    await self._link.open()
                started.set_result(None)
                await self._read_until_end(process, reader)
        finally:
            if self._link is not None:
                self._link.close()

    async def _spawn(self, output: int) -> asyncio.subprocess.Process:
        argv: tuple[str, ...] = self._spec.argv
        descriptors: tuple[int, ...] = ()
        if self._link is not None:
            argv, descriptors = argv + self._link.arguments, self._link.descriptors
        return await spawn(
            argv, cwd=self._spec.cwd, environment=self._spec.environment, output=output, descriptors=descriptors
        )

    async def _read_until_end(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader) -> None:
        reading = asyncio.create_task(self._pump(reader))
        await process.wait()
        # Its children, such as nginx's workers, must not outlive it: they hold its port.
        kill_group(process.pid)
        await asyncio.wait([reading], timeout=_KILLED_WAIT_S)
        reading.cancel()

    async def _pump(self, reader: asyncio.StreamReader) -> None:
        lines = LineBuffer(self._log)
        try:
            while data := await reader.read(_READ_BYTES):
                lines.feed(data)
        finally:
            lines.flush()

    async def why_not_ready(self) -> str | None:
        """None once it does its work."""
        if self.has_ended:
            return f"it {self.how_it_ended}"
        if self._link is None or self._spec.ready_at is None:
            return await self._spec.ready()
        return await self._spec.ready_at(self._link.private_port)()

    async def accept(self) -> None:
        """Have it serve on the address; returns once it does, or has ended."""
        if self._link is None or self.ended is None:
            return
        self._link.accept()
        accepting = asyncio.create_task(self._link.accepting.wait())
        await asyncio.wait([accepting, self.ended], return_when=asyncio.FIRST_COMPLETED)
        accepting.cancel()

    def relieve(self) -> None:
        """Another one serves on its address: have it end, in its own time."""
        if self._link is not None:
            self._link.relieve()
        # A second signal would have it hurry.
        if self._link is None or not self._link.is_leaving:
            self.signal(signal.SIGTERM)

    @property
    def has_ended(self) -> bool:
        """Whether the process itself has."""
        return self._process is None or self._process.returncode is not None

    @property
    def how_it_ended(self) -> str:
        """For people."""
        if self._process is None or self._process.returncode is None:
            return "has not started yet"
        code = self._process.returncode
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def signal(self, number: signal.Signals) -> None:
        """Fine when it has ended."""
        if self._process is not None and not self.has_ended:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL for it and whatever is in its group."""
        if self._process is not None:
            kill_group(self._process.pid)
