"""One HTTP/1.1 request and its answer on a byte stream, both ways at the same time and piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import h11

from libs.runtime.port import ByteStream
from services.terminal.preview.errors import BadRequestLineError

_READ_BYTES = 64 * 1024
# Of the head of an answer; cookies may be many.
_HEAD_BYTES = 256 * 1024


class BrokenAnswerError(Exception):
    """What came is no HTTP, or ended in the middle."""


class Exchange:
    """Sends in one task, receives in another. The stream is the caller's to close."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)

    async def send_head(self, method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raises BadRequestLineError, BrokenPipeError."""
        try:
            request = h11.Request(method=method, target=target, headers=[*headers, (b"connection", b"close")])
            data = self._http.send(request)
        except h11.LocalProtocolError as error:
            raise BadRequestLineError from error
        await self._write(data)

    async def send_body(self, data: bytes) -> None:
        """A piece. Raises BadRequestLineError, BrokenPipeError."""
        try:
            framed = self._http.send(h11.Data(data=data))
        except h11.LocalProtocolError as error:
            raise BadRequestLineError from error
        await self._write(framed)

    async def end_body(self) -> None:
        """That was all. Raises BadRequestLineError, BrokenPipeError."""
        try:
            framed = self._http.send(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            raise BadRequestLineError from error
        await self._write(framed)

    async def head(self) -> h11.Response:
        """The status and headers. Raises BrokenAnswerError, and what reading raises."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                raise BrokenAnswerError

    async def body(self) -> AsyncIterator[bytes]:
        """The pieces as they come. Raises BrokenAnswerError, and what reading raises."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise BrokenAnswerError

    async def _next(self) -> h11.Event:
        try:
            while True:
                event = self._http.next_event()
                if event is h11.PAUSED:
                    raise BrokenAnswerError
                if event is not h11.NEED_DATA:
                    assert not isinstance(event, type)
                    return event
                self._http.receive_data(await self._stream.read(_READ_BYTES))
        except h11.RemoteProtocolError as error:
            raise BrokenAnswerError(str(error)) from error

    async def _write(self, data: bytes | None) -> None:
        if data:
            await self._stream.write(data)
