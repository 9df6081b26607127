"""The event stream as the tools ask for it: pages, single events, the story of one environment."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from nats.js import JetStreamContext

from libs.common.history.errors import NoSuchEventError
from libs.common.history.query import ALL_EVENTS, EventQuery
from libs.common.history.reader import Progress, StreamReader
from libs.common.history.recorded import Recorded, in_order, iso
from libs.common.history.state import EnvironmentState, fold, up_to
from libs.common.history.timeline import Step, timeline
from libs.common.messaging.streams import EVENTS_STREAM

# What one page may look at to find events of a type; a page may be short, and its cursor goes on.
SCAN_LIMIT = 20_000


@dataclass(frozen=True, slots=True)
class Page:
    """`next_after` is the place in this stream to go on after, None at the end."""

    events: list[Recorded]
    next_after: int | None


class EventStream:
    """Everything raises EventsUnavailableError."""

    def __init__(self, js: JetStreamContext) -> None:
        self._reader = StreamReader(js)

    async def all(self, query: EventQuery, progress: Progress | None = None) -> AsyncGenerator[Recorded]:
        """What has happened until now, oldest first, with flat memory."""
        async for item in self._reader.read(EVENTS_STREAM, query.subject, since=query.since, progress=progress):
            if query.matches(item):
                yield item

    async def newest(self, query: EventQuery, limit: int, progress: Progress | None = None) -> list[Recorded]:
        """The last so many."""
        if query.is_server_side:
            items = await self._reader.newest(EVENTS_STREAM, query.subject, limit)
            return [item for item in items if query.matches(item)]
        found: deque[Recorded] = deque(maxlen=limit)
        async for item in self.all(query, progress):
            found.append(item)
        return list(found)

    async def page(self, query: EventQuery, *, after: int | None, limit: int) -> Page:
        """Up to `limit` events in order, after a place in this stream (None: from the beginning, or `since`)."""
        found: list[Recorded] = []
        looked_at, last = 0, after or 0
        most = limit if query.is_server_side else SCAN_LIMIT
        since = query.since if after is None else None
        items = self._reader.read(EVENTS_STREAM, query.subject, after_sequence=after, since=since, limit=most + 1)
        async with aclosing(items):
            async for item in items:
                if len(found) == limit or looked_at == most:
                    return Page(found, last)
                looked_at += 1
                last = item.stored_sequence
                if query.matches(item):
                    found.append(item)
        return Page(found, None)

    async def at(self, sequence: int) -> Recorded:
        """The event at this place of this stream. Raises NoSuchEventError."""
        item = await self._reader.at(EVENTS_STREAM, sequence)
        if item is None:
            raise NoSuchEventError(f"Nothing is stored at {sequence} in the event stream")
        return item

    async def find(self, name: str, progress: Progress | None = None) -> Recorded:
        """By event id, or by sequence, also the one an imported event had originally. Raises NoSuchEventError."""
        sequence = int(name) if name.isascii() and name.isdigit() and len(name) < 19 else None
        if sequence:
            item = await self._reader.at(EVENTS_STREAM, sequence)
            if item is not None and item.sequence == sequence:
                return item
        items = self._reader.read(EVENTS_STREAM, ALL_EVENTS, progress=progress)
        async with aclosing(items):
            async for item in items:
                if item.sequence == sequence or (name.encode() in item.payload and item.id == name):
                    return item
        raise NoSuchEventError(f"no event has the sequence or the id {name}")

    async def timeline(self, query: EventQuery, progress: Progress | None = None) -> list[Step]:
        """The rows of one environment, or of one request. Raises NoSuchEventError when there is not a single one."""
        steps = timeline([item async for item in self.all(query, progress)])
        if not steps:
            raise nothing_found(query)
        return steps

    async def state(
        self,
        environment: str,
        *,
        at: datetime | None = None,
        sequence: int | None = None,
        progress: Progress | None = None,
    ) -> EnvironmentState:
        """What the environment was. Raises NoSuchEventError."""
        events = [item async for item in self.all(EventQuery(environment), progress)]
        return state_of(environment, events, at=at, sequence=sequence)


def state_of(
    environment: str, events: list[Recorded], *, at: datetime | None = None, sequence: int | None = None
) -> EnvironmentState:
    """What the environment was, at a time or a place. Raises NoSuchEventError."""
    state = fold(environment, up_to(events, at=at, sequence=sequence))
    if state is not None:
        return state
    about = in_order(item for item in events if item.about == environment)
    if not about:
        raise nothing_found(EventQuery(environment))
    first = about[0]
    raise NoSuchEventError(
        f"environment {environment} had no event by then; its first is {first.sequence} at {iso(first.time)}"
    )


def nothing_found(query: EventQuery) -> NoSuchEventError:
    """A sentence that fits the question."""
    since = f" since {iso(query.since)}" if query.since is not None else ""
    if query.correlation is not None:
        return NoSuchEventError(f"no event belongs to the request {query.correlation}{since}")
    if query.environment is not None:
        return NoSuchEventError(f"no event is about environment {query.environment}{since}")
    return NoSuchEventError(f"there is no such event{since}")
