"""The event stream read from the past, through the reader that all tools share."""

from __future__ import annotations

from collections.abc import Callable

from nats.js import JetStreamContext

from libs.common.errors import UnavailableError
from libs.common.history.query import EventQuery
from libs.common.history.story import EventStream
from libs.common.messaging.broker import Bus
from services.envs.ports import EventPage
from services.envs.service.stories import visible


def reachable(bus: Bus) -> Callable[[], JetStreamContext]:
    """Gives the bus's JetStream context. It raises UnavailableError while there is no connection."""

    def jetstream() -> JetStreamContext:
        if not bus.connected:
            raise UnavailableError("The event stream is not reachable right now, please try again in a moment")
        return bus.jetstream

    return jetstream


class StreamHistory:
    """Implements EventHistory. What is malformed has its place in the dead letters, not in a user's story."""

    def __init__(self, bus: Bus) -> None:
        self._jetstream = reachable(bus)

    async def page(self, environment_id: str, *, after: int, limit: int) -> EventPage:
        """See EventHistory."""
        found = await EventStream(self._jetstream()).page(EventQuery(environment_id), after=after, limit=limit)
        events = [visible(item.event, item.stored_sequence) for item in found.events if item.event is not None]
        return EventPage(events, found.next_after)
