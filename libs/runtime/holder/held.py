"""A shell in its workspace's holder, as the service has it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from libs.runtime.holder.connection import HolderConnection
from libs.runtime.holder.inside import wire
from libs.runtime.holder.shells import HolderMissingError, Shell, ShellGoneError, ShellTakenError, Taken, nobody
from libs.runtime.port import (
    ExecRuntime,
    RuntimeUnavailableError,
    TerminalSize,
    WorkspaceNotFoundError,
    WorkspaceNotRunningError,
    WorkspaceRef,
)

log = logging.getLogger(__name__)

_HANG_UP_S = 4.0
_LAST_WORDS_S = 1.0
# About half a minute: longer than a cluster's API takes to restart.
_RETRY_PAUSES_S = (0.0, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True, slots=True)
class HoldTerms:
    """How a shell is held while no service is there: see `HeldShell` inside. Bytes, seconds, bytes a second."""

    quiet_bytes: int
    burst_bytes: int
    window_bytes: int
    hold_seconds: float
    keep_seconds: float
    bytes_per_second: int
    quiet_after_seconds: float = 10.0

    def request(self) -> dict[str, Any]:
        """As the holder understands it."""
        return {
            "quiet": self.quiet_bytes,
            "burst": self.burst_bytes,
            "window": self.window_bytes,
            "hold_s": self.hold_seconds,
            "keep_s": self.keep_seconds,
            "pace": self.bytes_per_second,
            "quiet_s": self.quiet_after_seconds,
        }


class HeldShell:
    """See `shells.Shell`. A connection that breaks while it is read is made anew, and nobody notices."""

    is_held = True

    def __init__(self, runtime: ExecRuntime, ref: WorkspaceRef, session_id: str) -> None:
        self.size = TerminalSize()
        self.offset = self.backlog_end = 0
        self.taken: Mapping[str, int] = {}
        self.has_forgotten = False
        self._runtime = runtime
        self._ref = ref
        self._session_id = session_id
        self.on_taken: Taken = nobody
        self._connection: HolderConnection | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._mended: asyncio.Event | None = None
        self._unconfirmed: list[tuple[str, int, bytes]] = []
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._exit_at = -1
        self._is_taken = self._is_over = False
        self._reading: asyncio.Task[object] | None = None
        self._is_woken = False
        self._beating: asyncio.Task[None] | None = None
        self._next_beat: asyncio.TimerHandle | None = None

    async def open(self, size: TerminalSize, terms: HoldTerms) -> None:
        """Start it. Raises HolderMissingError, and what ExecRuntime.exec raises."""
        await self._connect("open", {"cols": size.cols, "rows": size.rows, **terms.request()})

    async def attach(self) -> None:
        """Find it, from the oldest output that is still held. Raises ShellGoneError, and what exec raises."""
        await self._connect("attach", {})

    async def read(self, max_bytes: int) -> bytes:
        """See the protocol."""
        while True:
            connection = self._need()
            data = await self._read(connection, max_bytes)
            if data:
                self.offset += len(data)
                return data
            if self._is_at_end:
                return b""
            await self._mend()

    def write_now(self, data: bytes) -> int:
        """See the protocol."""
        return len(data) if self._need().send_now(wire.frame(wire.INPUT, data)) else 0

    def write_numbered_now(self, client: str, seq: int, data: bytes) -> bool:
        """See the protocol."""
        if not self._need().send_now(wire.numbered(client, seq, data)):
            return False
        self._unconfirmed.append((client, seq, data))
        return True

    async def write(self, data: bytes) -> None:
        """See the protocol."""
        await self._send(wire.frame(wire.INPUT, data))

    async def write_numbered(self, client: str, seq: int, data: bytes) -> None:
        """See the protocol."""
        self._unconfirmed.append((client, seq, data))
        # What a connection that breaks has not passed on is sent on the next one.
        with contextlib.suppress(BrokenPipeError):
            await self._need().send(wire.numbered(client, seq, data))

    async def resize(self, size: TerminalSize) -> None:
        """See the protocol."""
        self.size = size
        with contextlib.suppress(BrokenPipeError):
            await self._need().send(wire.resize(size.cols, size.rows))

    def forget(self, before: int) -> None:
        """The holder forgets by itself."""

    async def wait(self) -> int:
        """See the protocol."""
        return await asyncio.shield(self._exit)

    async def release(self) -> None:
        """See the protocol."""
        await self._end()

    async def close(self) -> None:
        """See the protocol."""
        if self._connection is not None and not self._is_taken:
            await self._connection.hang_up(_HANG_UP_S)
        await self._end()

    @property
    def _is_at_end(self) -> bool:
        return 0 <= self._exit_at <= self.offset

    async def _connect(self, do: str, request: dict[str, Any]) -> None:
        connection = await HolderConnection.connect(
            self._runtime, self._ref, do, {"session": self._session_id, "offset": self.offset, **request}
        )
        hello = connection.hello
        self.offset, self.backlog_end = hello["start"], hello["end"]
        self.size = TerminalSize(hello["cols"], hello["rows"])
        self.taken, self.has_forgotten = hello["taken"], hello["has_forgotten"]
        self._connection = connection
        self._hearing = asyncio.create_task(self._hear(connection))
        if self._next_beat is None:
            self._next_beat = self._loop.call_later(wire.BEAT_S, self._beat)

    def _beat(self) -> None:
        # One that still waits says enough once it goes.
        if self._beating is None or self._beating.done():
            self._beating = self._loop.create_task(self._send_beat())
        self._next_beat = self._loop.call_later(wire.BEAT_S, self._beat)

    async def _send_beat(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            await self._need().send(wire.frame(wire.BEAT))

    async def _read(self, connection: HolderConnection, max_bytes: int) -> bytes:
        """`b""` when the connection has broken, or the shell has ended: its terminal may go on without it."""
        if self._is_at_end:
            return b""
        task = self._reading = asyncio.current_task()
        try:
            return await connection.stream.read(max_bytes)
        except asyncio.CancelledError:
            if not self._is_woken or task is None or task.uncancel() > 0:
                raise
            return b""
        finally:
            self._reading = None

    async def _hear(self, connection: HolderConnection) -> None:
        while said := await connection.hear():
            if "ack" in said:
                self._confirm(*said["ack"])
            elif "displaced" in said:
                self._is_taken = True
            elif "exit" in said:
                code, self._exit_at = said["exit"]
                if not self._exit.done():
                    self._exit.set_result(code)
                if self._is_at_end and self._reading is not None:
                    self._is_woken = True
                    self._reading.cancel()

    def _confirm(self, client: str, seq: int) -> None:
        self._unconfirmed = [sent for sent in self._unconfirmed if sent[0] != client or sent[1] > seq]
        self.on_taken(client, seq)

    async def _send(self, frame: bytes) -> None:
        while True:
            connection = self._need()
            try:
                await connection.send(frame)
                return
            except BrokenPipeError:
                if self._is_over or self._exit.done():
                    raise
            while self._connection is connection and not self._is_over:
                self._mended = self._mended or asyncio.Event()
                await self._mended.wait()

    async def _mend(self) -> None:
        """Connect again. Raises ShellTakenError, ShellGoneError."""
        if self._hearing is not None:
            # It ends as the connection has, and may know why that was.
            await asyncio.wait([self._hearing], timeout=_LAST_WORDS_S)
        if self._is_taken:
            raise ShellTakenError("Another replica has taken the shell over.")
        if self._is_at_end or self._is_over:
            return
        await self._drop()
        size, before = self.size, self.offset
        await self._connect_with_patience()
        log.info("a shell's connection was made anew, %d bytes are missing", self.offset - before)
        if size != self.size:
            await self.resize(size)
        for client, seq, data in list(self._unconfirmed):
            if seq > self.taken.get(client, 0):
                await self._need().send(wire.numbered(client, seq, data))
            else:
                self._confirm(client, self.taken[client])
        self._tell_mended()

    async def _connect_with_patience(self) -> None:
        for pause in _RETRY_PAUSES_S:
            await asyncio.sleep(pause)
            try:
                await self._connect("attach", {})
                return
            except (WorkspaceNotFoundError, WorkspaceNotRunningError) as error:
                raise ShellGoneError("The workspace has ended, and the shell with it.") from error
            except (RuntimeUnavailableError, HolderMissingError) as error:
                log.warning("a shell's connection broke and cannot be made anew yet: %s", error)
        raise ShellGoneError("The workspace cannot be reached any more.")

    async def _end(self) -> None:
        self._is_over = True
        if self._next_beat is not None:
            self._next_beat.cancel()
        if self._beating is not None:
            self._beating.cancel()
        await self._drop()
        self._tell_mended()

    def _tell_mended(self) -> None:
        if self._mended is not None:
            self._mended.set()
            self._mended = None

    async def _drop(self) -> None:
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.wait([self._hearing])
        if self._connection is not None:
            await self._connection.stream.close()

    def _need(self) -> HolderConnection:
        if self._connection is None:
            raise BrokenPipeError("the shell was never found")
        return self._connection


@runtime_checkable
class ShellRuntime(Protocol):
    """A runtime that has another way to hold shells than a holder in each workspace."""

    async def start_shell(self, ref: WorkspaceRef, session_id: str, size: TerminalSize, terms: HoldTerms) -> Shell:
        """A new login shell. Raises HolderMissingError, and what ExecRuntime.exec raises."""
        ...

    async def find_shell(self, ref: WorkspaceRef, session_id: str) -> Shell:
        """One that was started before, from here or elsewhere. Raises ShellGoneError, and what exec raises."""
        ...


async def start_shell(
    runtime: ExecRuntime, ref: WorkspaceRef, session_id: str, size: TerminalSize, terms: HoldTerms
) -> Shell:
    """A new login shell that is held. Raises HolderMissingError, and what ExecRuntime.exec raises."""
    if isinstance(runtime, ShellRuntime):
        return await runtime.start_shell(ref, session_id, size, terms)
    shell = HeldShell(runtime, ref, session_id)
    await shell.open(size, terms)
    return shell


async def find_shell(runtime: ExecRuntime, ref: WorkspaceRef, session_id: str) -> Shell:
    """One that was started before, from here or elsewhere. Raises ShellGoneError, and what ExecRuntime.exec raises."""
    if isinstance(runtime, ShellRuntime):
        return await runtime.find_shell(ref, session_id)
    shell = HeldShell(runtime, ref, session_id)
    try:
        await shell.attach()
    except HolderMissingError as error:
        raise ShellGoneError("The workspace's holder has ended, and the shell with it.") from error
    return shell
