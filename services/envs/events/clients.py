"""One client of the live feed: a bounded queue between the stream and a connection that may be slow."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator

import structlog

from services.envs.ports import Gap, StoredEvent, StreamClosedError

_QUEUE_EVENTS = 256

log = structlog.get_logger(__name__)

Item = StoredEvent | Gap


class ClientStream:
    """Implements LiveStream. Takes events with a sequence above `after`, so that none comes twice."""

    def __init__(
        self, forget: Callable[[ClientStream], None], user_id: str, session_id: str, *, sees_all: bool, after: int
    ) -> None:
        self.user_id = user_id
        self.session_id = session_id
        self.sees_all = sees_all
        self._after = after
        self._forget = forget
        self._items: deque[Item] = deque()
        self._limit = _QUEUE_EVENTS
        self._changed = asyncio.Event()
        self._closed = False

    def may_see(self, event: StoredEvent) -> bool:
        """Whether the event is about an environment of this user."""
        return self.sees_all or event.user_id == self.user_id

    def catch_up(self, missed: Collection[StoredEvent]) -> None:
        """Put what it missed before what has come since, beside the room for what is to come."""
        self._items.extendleft(reversed(list(missed)))
        self._limit += len(missed)

    def begin_again(self, seen: int, after: int) -> None:
        """Say that what is between cannot be delivered, and go on after it."""
        self._items.clear()
        self._items.append(Gap(seen=seen, resumes_after=after))
        self._after = after
        self._changed.set()

    def offer(self, event: StoredEvent) -> None:
        """Queue an event that the client may see, or give the client up when it does not keep up."""
        if event.sequence <= self._after or not self.may_see(event):
            return
        if len(self._items) >= self._limit:
            log.warning("live events: a client is too slow and is closed", user_id=self.user_id)
            self.close()
            return
        self._items.append(event)
        self._changed.set()

    async def next(self, timeout_s: float) -> Item | None:
        """See LiveStream."""
        if not self._items and not self._closed:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), timeout_s)
        if self._closed:
            raise StreamClosedError
        return self._items.popleft() if self._items else None

    def close(self) -> None:
        """See LiveStream."""
        self._closed = True
        self._items.clear()
        self._changed.set()
        self._forget(self)


class Clients:
    """All clients of one replica. An event costs those who see it, however many the others are."""

    def __init__(self) -> None:
        self._by_user: defaultdict[str, set[ClientStream]] = defaultdict(set)
        self._see_all: set[ClientStream] = set()

    def __iter__(self) -> Iterator[ClientStream]:
        """Each once; they may be closed on the way."""
        return iter([stream for streams in self._by_user.values() for stream in streams])

    def add(self, stream: ClientStream) -> None:
        """One more."""
        self._by_user[stream.user_id].add(stream)
        if stream.sees_all:
            self._see_all.add(stream)

    def discard(self, stream: ClientStream) -> None:
        """It is closed."""
        self._see_all.discard(stream)
        streams = self._by_user[stream.user_id]
        streams.discard(stream)
        if not streams:
            del self._by_user[stream.user_id]

    def count(self, user_id: str) -> int:
        """How many this user has."""
        return len(self._by_user.get(user_id, ()))

    def offer(self, event: StoredEvent) -> None:
        """To all who may see it."""
        own = self._by_user.get(event.user_id or "", set())
        for stream in own | self._see_all:
            stream.offer(event)
