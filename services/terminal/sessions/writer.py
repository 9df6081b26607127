"""One connection's side of typing: what its client sends goes to the shell, is acknowledged, or said to be dropped."""

from __future__ import annotations

from services.terminal import protocol
from services.terminal.domain import Mode
from services.terminal.protocol import Frame, FrameError, Input, InputSeq, Ping
from services.terminal.sessions.attachment import Attachment
from services.terminal.sessions.session import TerminalSession
from services.terminal.sessions.typing import Typed

_OVERFLOW = ("input_overflow", "the shell has not taken yet what came before")
_GAP = ("input_gap", "input before it is missing; send again from the first that was not acknowledged")
_NOT_COUNTED = protocol.error("invalid_frame", "Binary frames are numbered only with ?client= in the URL")


class Writer:
    """Takes a client's frames in their order.

    With `counts_binary` every binary frame has a number: the first one the number after that in `ready`, each further
    one the next. `input_seq` sets it anew, to go back to what was not acknowledged.
    """

    def __init__(self, session: TerminalSession, attachment: Attachment, *, counts_binary: bool) -> None:
        self._session = session
        self._attachment = attachment
        self._counts_binary = counts_binary
        # Of the next binary frame; None when only the client can say.
        self._next: int | None = (attachment.seq or 0) + 1

    def drop(self, message: Frame, code: str, why: str) -> None:
        """A message that is not looked at; the client is told."""
        self._attachment.undelivered(code, why)
        if isinstance(message, str):
            # It may have been an input_seq: typing on by the old count could type something twice.
            self._next = None
        elif self._next is not None:
            self._next += 1

    async def take(self, message: Frame) -> None:
        """Do what the frame asks for, or answer that it cannot be understood."""
        try:
            frame = protocol.parse(message)
        except FrameError as error:
            self._attachment.answer(protocol.error(error.code, error.message))
            return
        if isinstance(frame, Ping):
            self._attachment.answer(protocol.pong())
        elif self._attachment.mode is Mode.READ_ONLY:
            return
        elif isinstance(frame, Input):
            await self._session.active(self._attachment)
            self._input(frame, is_binary=isinstance(message, bytes))
        elif isinstance(frame, InputSeq):
            self._count_from(frame.seq)
        else:
            await self._session.active(self._attachment, frame.size)

    def _count_from(self, seq: int) -> None:
        if self._counts_binary:
            self._next = seq
        else:
            self._attachment.answer(_NOT_COUNTED)

    def _input(self, frame: Input, *, is_binary: bool) -> None:
        if is_binary and self._counts_binary:
            seq = self._next
            if seq is None:
                self._refuse_gap(self._session.confirmed_from(self._attachment.client))
                return
        else:
            seq = frame.seq
        if seq is not None:
            self._next = seq + 1
            self._numbered(seq, frame.data)
        elif frame.data and not self._session.type(frame.data):
            self._attachment.undelivered(*_OVERFLOW)

    def _numbered(self, seq: int, data: bytes) -> None:
        typed, confirmed = self._session.type_numbered(self._attachment.client, seq, data)
        if typed is Typed.GAP:
            self._refuse_gap(confirmed)
        elif typed is not Typed.TAKEN:
            # What is taken is acknowledged once the shell has it.
            if typed is Typed.OVERFLOW:
                self._attachment.undelivered(*_OVERFLOW)
            self._attachment.acknowledge(confirmed)

    def _refuse_gap(self, confirmed: int) -> None:
        self._attachment.undelivered(*_GAP)
        self._attachment.acknowledge(confirmed)
