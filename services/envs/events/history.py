"""Reads the story of one environment from the stream, with one filter that the server applies."""

from __future__ import annotations

import contextlib
import json

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import Error as JetStreamError

from libs.common.contracts.events import Event
from libs.common.errors import UnavailableError
from libs.common.ids import new_id
from libs.common.messaging.broker import Bus
from libs.common.messaging.streams import EVENTS_STREAM
from services.envs.ports import EventPage, StoredEvent
from services.envs.service.stories import visible

_FETCH_TIMEOUT_S = 5.0
# The consumer of a reader that died must not stay.
_FORGET_AFTER_S = 30.0


class StreamHistory:
    """Implements EventHistory with a consumer that lives for one page."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def page(self, environment_id: str, *, after: int, limit: int) -> EventPage:
        """See EventHistory."""
        if not self._bus.connected:
            raise UnavailableError("The event stream is not reachable right now, please try again in a moment")
        try:
            return await self._read(self._bus.jetstream, f"devpocket.*.{environment_id}.>", after, limit)
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError("The event stream does not answer right now, please try again") from error

    async def _read(self, js: JetStreamContext, subject: str, after: int, limit: int) -> EventPage:
        name = new_id()
        config = ConsumerConfig(
            name=name,
            filter_subject=subject,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=_FORGET_AFTER_S,
            mem_storage=True,
        )
        # The server says how many there are, so the last fetch does not wait for one that never comes.
        available = (await js.add_consumer(EVENTS_STREAM, config)).num_pending or 0
        found: list[StoredEvent] = []
        last = after
        remaining = min(limit, available)
        try:
            subscription = await js.pull_subscribe_bind(consumer=name, stream=EVENTS_STREAM)
            while remaining > 0:
                for message in await subscription.fetch(remaining, timeout=_FETCH_TIMEOUT_S):
                    remaining -= 1
                    last = message.metadata.sequence.stream
                    found += _decoded(message.data, last)
            await subscription.unsubscribe()
        finally:
            with contextlib.suppress(TimeoutError, NatsError, JetStreamError):
                await js.delete_consumer(EVENTS_STREAM, name)
        return EventPage(found, last if available > limit else None)


def _decoded(payload: bytes, sequence: int) -> list[StoredEvent]:
    """Empty for a malformed message: those have their place in the dead letters."""
    try:
        return [visible(Event.model_validate(json.loads(payload)), sequence)]
    except ValueError:
        return []
