"""Reading a stream without leaving a trace there: all of it, its end, or as it grows."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from libs.common.history.consumer import BATCH, SilentServerError, Start, consuming
from libs.common.history.errors import EventsUnavailableError
from libs.common.history.recorded import Recorded, recorded
from libs.common.messaging.streams import EVENTS_STREAM

_FETCH_WAIT_S = 5.0
_FOLLOW_WAIT_S = 5.0
_TRY_AGAIN_S = 0.5
_FIRST_WINDOW = 1_000

Progress = Callable[[int, int], None]
"""Called with how many messages were read, and how many there are to read."""

_UNAVAILABLE = (TimeoutError, NatsError, SilentServerError, OSError)


class StreamReader:
    """Reads through one connection. Everything raises EventsUnavailableError when the server does not play along."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js

    async def read(
        self,
        stream: str,
        subject: str,
        *,
        after_sequence: int | None = None,
        since: datetime | None = None,
        until_sequence: int | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> AsyncGenerator[Recorded]:
        """Messages in order, ending with the last that was there at the beginning; memory stays flat.

        `after_sequence` and `until_sequence` are places in this stream. `since` is when a message was stored first,
        which for an imported one was earlier, elsewhere.
        """
        start = Start(after=after_sequence, since=since)
        done = 0
        with _translated(stream):
            async with aclosing(self._batches(stream, subject, start, limit)) as batches:
                async for batch, remaining in batches:
                    for item in batch:
                        if until_sequence is not None and item.stored_sequence > until_sequence:
                            return
                        if since is None or item.stored_at >= since:
                            yield item
                    done += len(batch)
                    if progress is not None:
                        progress(done, done + remaining)

    async def _batches(
        self, stream: str, subject: str, start: Start, limit: int | None
    ) -> AsyncGenerator[tuple[list[Recorded], int]]:
        """What was there at the beginning, and how much is left. Raises SilentServerError and nats-py's errors."""
        remaining = limit
        while remaining is None or remaining > 0:
            progressed = False
            try:
                async with consuming(self._js, stream, subject, start) as consumer:
                    remaining = consumer.waiting if remaining is None else min(consumer.waiting, remaining)
                    while remaining > 0:
                        messages = await consumer.fetch(min(BATCH, remaining), _FETCH_WAIT_S)
                        if not messages:
                            # They were there when we asked: limits of the stream have removed them meanwhile.
                            return
                        remaining = min(remaining - len(messages), messages[-1].metadata.num_pending)
                        batch = [_recorded(message) for message in messages]
                        start, progressed = Start(after=batch[-1].stored_sequence), True
                        yield batch, remaining
            except SilentServerError:
                # The server forgets a consumer that takes its time, as a person does who goes step by step.
                if not progressed or not self._js._nc.is_connected:
                    raise

    async def newest(self, stream: str, subject: str, limit: int) -> list[Recorded]:
        """The last `limit` messages in order, without reading what is before them."""
        first, last = await self.bounds(stream)
        window = max(limit, _FIRST_WINDOW)
        while True:
            after = max(last - window, first - 1)
            if after < first or await self.total(stream, subject, after_sequence=after) >= limit:
                break
            window *= 4
        found: deque[Recorded] = deque(maxlen=limit)
        async for item in self.read(stream, subject, after_sequence=after):
            found.append(item)
        return list(found)

    async def total(self, stream: str, subject: str, *, after_sequence: int | None = None) -> int:
        """How many messages there are on a subject."""
        with _translated(stream):
            async with consuming(self._js, stream, subject, Start(after=after_sequence)) as consumer:
                return consumer.waiting

    async def bounds(self, stream: str) -> tuple[int, int]:
        """The first and the last place in the stream; (1, 0) or alike when it is empty."""
        with _translated(stream):
            state = (await self._js.stream_info(stream)).state
        return state.first_seq, state.last_seq

    async def at(self, stream: str, sequence: int) -> Recorded | None:
        """The message at this place of this stream; None when there is none."""
        with _translated(stream):
            try:
                raw = await self._js.get_msg(stream, seq=sequence)
            except NotFoundError:
                await self._js.stream_info(stream)
                return None
            return recorded(
                subject=raw.subject or "",
                payload=raw.data or b"",
                headers=raw.headers or {},
                stored_sequence=sequence,
                stored_at=raw.time or datetime.fromtimestamp(0, UTC),
            )

    async def follow(
        self,
        subject: str,
        *,
        stream: str = EVENTS_STREAM,
        since: datetime | None = None,
        notice: Callable[[str], None] = lambda _: None,
    ) -> AsyncGenerator[Recorded]:
        """Messages as they come, with `since` past ones first, for ever: each once, whatever the connection does.

        `notice` hears, in a sentence, when the connection is lost and when it is back. The connection must be one that
        reconnects by itself; once it is closed, EventsUnavailableError is raised.
        """
        start = Start(since=since) if since is not None else Start(after=(await self.bounds(stream))[1])
        lost = False
        while True:
            try:
                async with consuming(self._js, stream, subject, start) as consumer:
                    if lost:
                        notice("the event stream is back")
                        lost = False
                    behind = consumer.waiting
                    while True:
                        # What is there comes in batches; what is to come, one by one, so that none waits for others.
                        messages = await consumer.fetch(min(BATCH, max(behind, 1)), _FOLLOW_WAIT_S)
                        behind = messages[-1].metadata.num_pending if messages else 0
                        for message in messages:
                            item = _recorded(message)
                            start = Start(after=item.stored_sequence)
                            if since is None or item.stored_at >= since:
                                yield item
            except _UNAVAILABLE as error:
                if self._js._nc.is_closed:
                    raise EventsUnavailableError(f"following events ended: {_said(error)}") from error
                if not lost:
                    notice("the event stream is away; waiting for it")
                    lost = True
                await asyncio.sleep(_TRY_AGAIN_S)
                start = await self._still_valid(stream, start)

    async def _still_valid(self, stream: str, start: Start) -> Start:
        """A stream that began anew is followed from its beginning."""
        with contextlib.suppress(EventsUnavailableError):
            _, last = await self.bounds(stream)
            if start.after is not None and start.after > last:
                return Start(after=0)
        return start


def _recorded(message: Msg) -> Recorded:
    metadata = message.metadata
    return recorded(
        subject=message.subject,
        payload=message.data,
        headers=message.headers or {},
        stored_sequence=metadata.sequence.stream,
        stored_at=metadata.timestamp,
    )


@contextmanager
def _translated(stream: str) -> Iterator[None]:
    try:
        yield
    except NotFoundError as error:
        raise EventsUnavailableError(f"there is no stream {stream} yet; the services make it") from error
    except _UNAVAILABLE as error:
        raise EventsUnavailableError(f"reading events failed: {_said(error)}") from error


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
