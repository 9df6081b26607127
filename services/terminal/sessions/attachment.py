"""One connection's view of a session: where it is in the output, and what it still has to be told."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Protocol

from libs.runtime.holder.inside.ring import Ring
from services.terminal import protocol
from services.terminal.domain import Caller, Closing, Mode
from services.terminal.ports import Channel, ChannelClosedError
from services.terminal.protocol import Codec, Frame

# Large enough that a flood costs few frames, small enough that a key stroke's echo never waits long behind one.
_FRAME_BYTES = 64 * 1024
# Answers to a client that sends but does not read; more would be memory it controls.
_MAX_WAITING_ANSWERS = 64
# After this a socket that takes no close frame is given up; a revoked login must be out within a second.
_GOODBYE_SECONDS = 0.5


class Source(Protocol):
    """The session, as far as an attachment reads from it."""

    ring: Ring
    exit_code: int | None

    def progressed(self) -> None:
        """An attachment has taken output."""
        ...


class Attachment:
    """Sends a session's output from `offset` on. `run` is the only sender on its channel."""

    def __init__(
        self,
        source: Source,
        channel: Channel,
        codec: Codec,
        *,
        caller: Caller,
        environment_id: str,
        mode: Mode,
        client: str,
        seq: int | None,
        offset: int,
        hello: Frame,
    ) -> None:
        """`seq`: the highest number of its client's input taken so far, as `hello` says it."""
        self.caller = caller
        self.client = client
        self.seq = seq
        self.environment_id = environment_id
        self.mode = mode
        self.position = offset
        self.saw_exit = False
        self._source = source
        self._channel = channel
        self._codec = codec
        # Rarely more than one, and an empty deque is as large as all else here together.
        self._answers: list[Frame] = [hello]
        self._undelivered: Counter[tuple[str, str]] = Counter()
        self._ack: int | None = None
        self._closing: Closing | None = None
        self._sending_since: float | None = None
        self._task: asyncio.Task[object] | None = None
        self._wake = asyncio.Event()
        self._resting = False

    def wake(self) -> None:
        """There is output to send. While the sender rests and the client takes it, it leaves at once."""
        if not (self._resting and self._sent_at_once()):
            self._wake.set()

    @property
    def owes_many_answers(self) -> bool:
        """Whether the sender should get a turn before more is asked of it."""
        return len(self._answers) > _MAX_WAITING_ANSWERS // 2

    def answer(self, frame: Frame) -> None:
        """Send a control frame ahead of further output; dropped when the client takes none of many before it."""
        if len(self._answers) < _MAX_WAITING_ANSWERS:
            self._answers.append(frame)
            self._wake.set()

    def undelivered(self, code: str, why: str) -> None:
        """Tell the client that a message of its was dropped; several are told in one frame."""
        self._undelivered[code, why] += 1
        self._wake.set()

    def acknowledge(self, seq: int) -> None:
        """Tell the client that its numbered input was taken up to `seq`; the newest of several is told."""
        self._ack = seq
        self._wake.set()

    def close(self, closing: Closing) -> None:
        """Say goodbye and end; what the client has not taken by then is left to a resume."""
        if self._closing is None:
            self._closing = closing
            self._wake.set()
            if self._task is not None:
                asyncio.get_running_loop().call_later(_GOODBYE_SECONDS, self._task.cancel)

    def stalled_for(self) -> float:
        """For how many seconds the client has not taken the frame at hand."""
        since = self._sending_since
        return 0.0 if since is None else asyncio.get_running_loop().time() - since

    async def run(self) -> None:
        """Send until the session ends, `close` is called or the client is gone."""
        self._task = asyncio.current_task()
        with contextlib.suppress(ChannelClosedError):
            while await self._step():
                pass

    async def _step(self) -> bool:
        self._wake.clear()
        if self._closing is not None:
            await self._goodbye(self._closing)
            return False
        if self._answers:
            await self._send(self._answers.pop(0))
        elif self._undelivered:
            await self._send_undelivered()
        elif self._ack is not None:
            await self._send_ack(self._ack)
        elif not await self._send_output():
            if self._source.exit_code is not None:
                await self._finish(self._source.exit_code)
                return False
            await self._rest()
        return True

    async def _rest(self) -> None:
        self._resting = True
        try:
            await self._wake.wait()
        finally:
            self._resting = False

    def _sent_at_once(self) -> bool:
        """Without waking the sender; False when that has to do it, because it needs to wait or to say more."""
        ring = self._source.ring
        if self._wake.is_set() or self._source.exit_code is not None or self.position < ring.start:
            return False
        data = ring.read(self.position, _FRAME_BYTES)
        is_all = self.position + len(data) == ring.end
        frame, used = self._codec.output(data, self.position, final=False)
        if frame is not None:
            if not self._channel.send_now(frame):
                return False
            self.position += used
            self._source.progressed()
        return is_all

    async def _send_output(self) -> bool:
        ring = self._source.ring
        # Again: the ring may have moved on while the gap was being sent.
        while self.position < ring.start:
            await self._send_gap(ring)
        if self.position == ring.end:
            return False
        data = ring.read(self.position, _FRAME_BYTES)
        final = self._source.exit_code is not None and self.position + len(data) == ring.end
        frame, used = self._codec.output(data, self.position, final=final)
        if frame is None:
            return False
        await self._send(frame)
        self.position += used
        self._source.progressed()
        return True

    async def _send_gap(self, ring: Ring) -> None:
        lost_from = self.position
        # Before the send: the ring moves on while it waits, and then the next gap begins where this one ends.
        self.position = ring.start + self._codec.resume_at(ring.read(ring.start, 4))
        await self._send(protocol.gap(lost_from, self.position))

    async def _send_undelivered(self) -> None:
        (code, why), count = self._undelivered.popitem()
        what = "A message was" if count == 1 else f"{count} messages were"
        await self._send(protocol.error(code, f"{what} not delivered: {why}"))

    async def _send_ack(self, seq: int) -> None:
        # Before the send: what is taken while it waits is a new one.
        self._ack = None
        await self._send(protocol.ack(seq))

    async def _finish(self, exit_code: int) -> None:
        await self._send(protocol.exited(exit_code))
        self.saw_exit = True
        await self._channel.close(1000, "exit")

    async def _goodbye(self, closing: Closing) -> None:
        await self._send(protocol.error(closing.code, closing.message))
        await self._channel.close(closing.socket_code, closing.code)

    async def _send(self, frame: Frame) -> None:
        self._sending_since = asyncio.get_running_loop().time()
        await self._channel.send(frame)
        self._sending_since = None
