"""A shell that outlives its connections: one stream, one ring, any number of attachments."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import structlog

from libs.common.ids import new_id
from libs.runtime.holder.inside.ring import Ring
from libs.runtime.holder.shells import Shell, ShellTakenError
from libs.runtime.port import DriverError, TerminalSize
from services.terminal import protocol
from services.terminal.domain import (
    CLOSINGS,
    MOVED,
    Caller,
    CloseReason,
    Closing,
    Mode,
    OffsetBeyondEndError,
)
from services.terminal.ports import Channel, OpenedSession
from services.terminal.protocol import Codec
from services.terminal.sessions.attachment import Attachment
from services.terminal.sessions.typing import InputQueue, Typed
from services.terminal.sessions.window import Window

_READ_BYTES = 64 * 1024
# Longer than a holder takes to end a shell that does not want to.
_CLOSE_SECONDS = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of one session; see TerminalSettings, where they come from."""

    ring_bytes: int
    burst_bytes: int
    window_bytes: int
    input_bytes: int
    hold_seconds: float
    detached_bytes_per_second: int
    quiet_after_seconds: float = 10.0


class TerminalSession:
    """Reads its shell only as fast as somebody takes the output.

    While connections are there, the shell is paused when even the fastest is `window_bytes` behind; slower ones lose
    output to a gap once the ring has gone over it. For `hold_seconds` after the last one left, the shell is paused at
    the same distance, so that a client that comes back misses nothing; after that it runs on and the ring forgets.

    What was sent is not yet received: socket buffers and proxies between hold some megabytes of a flood, and a cut
    loses them. So the ring holds `burst_bytes` while output flows, and `ring_bytes` once it rests.
    """

    def __init__(self, record: OpenedSession, shell: Shell, limits: SessionLimits) -> None:
        self.record = record
        self.id = record.id
        self.environment_id = record.environment_id
        self.ring = Ring(limits.burst_bytes, shell.offset)
        self._began_at = shell.offset
        self.exit_code: int | None = None
        self.ending: CloseReason | None = None
        self.is_taken = False
        self._loop = asyncio.get_running_loop()
        self._shell = shell
        self._limits = limits
        self._attachments: set[Attachment] = set()
        self._left_at = self._loop.time()
        self._left_position = shell.backlog_end
        self._unpaced_bytes = 0
        self._wrote_at = self._typed_at = self._left_at
        self._room: asyncio.Event | None = None
        self._catching_up: asyncio.Event | None = None
        self._input = InputQueue(shell, limits.input_bytes, self._is_connected, self._confirmed)
        self._window = Window(shell.size, self._resize)
        self._fitting: asyncio.Task[None] | None = None
        self._pumping = asyncio.create_task(self._pump())

    @property
    def attachments(self) -> AbstractSet[Attachment]:
        """The connections on this session."""
        return self._attachments

    @property
    def detached_for(self) -> float:
        """For how many seconds nobody has been connected; 0.0 while somebody is."""
        return 0.0 if self._attachments else self._loop.time() - self._left_at

    @property
    def idle_for(self) -> float:
        """For how many seconds nothing was typed nor put out."""
        return self._loop.time() - max(self._wrote_at, self._typed_at)

    @property
    def typed_bytes(self) -> int:
        """What was typed into the shell through this process."""
        return self._input.taken_bytes

    @property
    def output_bytes(self) -> int:
        """What the shell has put out into this process."""
        return self.ring.end - self._began_at

    @property
    def size(self) -> TerminalSize:
        """Of the shell's window."""
        return self._window.size

    def attach(
        self,
        channel: Channel,
        codec: Codec,
        *,
        caller: Caller,
        mode: Mode,
        offset: int | None,
        client: str | None = None,
    ) -> Attachment:
        """A connection that gets the output from `offset`, by default from the oldest byte still held.

        Numbered input is counted for `client`, by default for this connection alone. Raises OffsetBeyondEndError.
        """
        start = self.ring.start if offset is None else offset
        if start > self.ring.end:
            raise OffsetBeyondEndError(start, self.ring.end)
        seq = 0 if client is None else self._input.told(client)
        client = client or new_id()
        attachment = Attachment(
            self,
            channel,
            codec,
            caller=caller,
            environment_id=self.environment_id,
            mode=mode,
            client=client,
            seq=seq,
            offset=start,
            hello=protocol.ready(self.id, start, client, seq),
        )
        self._attachments.add(attachment)
        if self.ending is not None:
            attachment.close(CLOSINGS[self.ending])
        self._look_for_room()
        return attachment

    def detach(self, attachment: Attachment) -> None:
        """The connection is gone."""
        self._attachments.discard(attachment)
        if not self._attachments:
            self._left_at = self._loop.time()
            self._left_position = attachment.position
        self._look_for_room()
        if self._window.left(attachment):
            self._fitting = asyncio.create_task(self._window.fit())

    def forget_burst(self) -> None:
        """Shrink the ring to its quiet size once output has rested long enough for clients to have received it.

        A shell that is paused rests because they have not, and while it is held somebody may come back for the rest.
        """
        rests = self._loop.time() - self._wrote_at > self._limits.quiet_after_seconds
        is_safe = self._room is None and (self._attachments or self._hold_ends_in() <= 0)
        if rests and is_safe:
            self.ring.trim(self._limits.ring_bytes)
            self._shell.forget(self.ring.start)

    def progressed(self) -> None:
        """An attachment has taken output."""
        self._look_for_room()

    def type(self, data: bytes) -> bool:
        """Input for the shell; False when it is dropped because the shell has not taken what came before."""
        self._typed_at = self._loop.time()
        return self._input.type(data)

    def confirmed_from(self, client: str) -> int:
        """The highest number of this client's input that the shell has for sure, as far as it is remembered."""
        return self._input.confirmed(client)

    def type_numbered(self, client: str, seq: int, data: bytes) -> tuple[Typed, int]:
        """Input that is typed only if it is the next of this client's; and the highest number confirmed by now."""
        self._typed_at = self._loop.time()
        return self._input.type_numbered(client, seq, data)

    async def active(self, attachment: Attachment, size: TerminalSize | None = None) -> None:
        """This connection types, or has a window of this size now: the shell's window becomes like its own."""
        await self._window.active(attachment, size)

    def end(self, reason: CloseReason) -> None:
        """Tell every connection why, and let `run` return."""
        if self.ending is None and self.exit_code is None:
            self.ending = reason
            self._pumping.cancel()
            self._close_all(CLOSINGS[reason])

    @property
    def outlives_us(self) -> bool:
        """Whether the shell goes on, in other hands or until somebody finds it."""
        return self.is_taken or (self.ending is CloseReason.SHUTDOWN and self._shell.is_held)

    async def catch_up(self) -> None:
        """Until what the shell had put out when it was found is here."""
        if self.ring.end < self._shell.backlog_end and not self._pumping.done():
            self._catching_up = asyncio.Event()
            await self._catching_up.wait()

    async def run(self) -> int | None:
        """Until the shell has ended: its exit code, or None when it was ended by `end`, taken over or lost."""
        try:
            await self._pumping
            return await self._shell.wait()
        except asyncio.CancelledError:
            if self.ending is None:
                raise
        except ShellTakenError:
            self.is_taken = True
            self._close_all(MOVED)
        except Exception as error:
            log.warning("terminal stream lost", session_id=self.id, error=repr(error))
        return None

    def exited(self, code: int) -> None:
        """The shell has ended by itself: connections get the rest of the output, then the code."""
        self.exit_code = code
        for attachment in self._attachments:
            attachment.wake()

    async def close(self) -> None:
        """End the shell with everything it started, unless it outlives us. Attachments are left to themselves."""
        tasks = [task for task in (self._pumping, self._fitting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._input.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await (self._shell.release() if self.outlives_us else self._shell.close())
        except Exception as error:
            log.warning("shell not closed cleanly", session_id=self.id, error=repr(error))

    def _close_all(self, closing: Closing) -> None:
        for attachment in self._attachments:
            attachment.close(closing)

    def _confirmed(self, client: str, seq: int) -> None:
        for attachment in self._attachments:
            if attachment.client == client:
                attachment.acknowledge(seq)

    async def _resize(self, size: TerminalSize) -> None:
        # When the shell is gone, nobody needs its window.
        with contextlib.suppress(OSError, DriverError):
            await self._shell.resize(size)

    def _is_connected(self, client: str) -> bool:
        return any(attachment.client == client for attachment in self._attachments)

    async def _pump(self) -> None:
        try:
            await self._read_all()
        finally:
            self._tell_caught_up()

    def _tell_caught_up(self) -> None:
        if self._catching_up is not None:
            self._catching_up.set()
            self._catching_up = None

    async def _read_all(self) -> None:
        while data := await self._shell.read(_READ_BYTES):
            begin = self._shell.offset - len(data)
            if begin != self.ring.end:
                self.ring.skip_to(begin)
            self.ring.append(data)
            self._wrote_at = self._loop.time()
            for attachment in self._attachments:
                attachment.wake()
            if self.ring.end < self._shell.backlog_end:
                continue
            self._tell_caught_up()
            if not self._has_room():
                await self._wait_for_room()
            elif not self._attachments:
                await self._pace(len(data))

    def _has_room(self) -> bool:
        if self._attachments:
            reader = max(attachment.position for attachment in self._attachments)
        elif self._hold_ends_in() > 0:
            reader = self._left_position
        else:
            return True
        return self.ring.end - reader <= self._limits.window_bytes

    def _hold_ends_in(self) -> float:
        return self._left_at + self._limits.hold_seconds - self._loop.time()

    def _look_for_room(self) -> None:
        if self._room is not None:
            self._room.set()

    async def _wait_for_room(self) -> None:
        while not self._has_room():
            self._room = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if self._attachments else self._hold_ends_in()):
                    await self._room.wait()
        self._room = None

    async def _pace(self, count: int) -> None:
        """Nobody watches: a shell that floods must not take the processor from those that are watched."""
        self._unpaced_bytes += count
        if self._unpaced_bytes >= _READ_BYTES:
            await asyncio.sleep(self._unpaced_bytes / self._limits.detached_bytes_per_second)
            self._unpaced_bytes = 0
