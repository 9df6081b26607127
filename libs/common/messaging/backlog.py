"""How far consumers are behind, and how much has died: questions to the server that cost it little."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM


@dataclass(frozen=True, slots=True)
class ConsumerBacklog:
    """`pending`: in the stream and not yet sent to the consumer. `unacknowledged`: sent and not finished."""

    pending: int
    unacknowledged: int


async def consumer_backlog(js: JetStreamContext, consumers: Sequence[str]) -> dict[str, ConsumerBacklog]:
    """Of each consumer that the server has, by name. Raises what nats-py raises."""
    found = await asyncio.gather(*(_backlog(js, consumer) for consumer in consumers))
    return {consumer: backlog for consumer, backlog in zip(consumers, found, strict=True) if backlog is not None}


async def dead_letters(js: JetStreamContext, service: str) -> int:
    """How many of this service's there are. Raises what nats-py raises."""
    # The server names at most 100,000 subjects in an answer. Nobody will mistake that for few.
    stream = await js.stream_info(DEAD_LETTER_STREAM, subjects_filter=f"dlq.{service}.>")
    return sum((stream.state.subjects or {}).values())


async def _backlog(js: JetStreamContext, consumer: str) -> ConsumerBacklog | None:
    try:
        info = await js.consumer_info(EVENTS_STREAM, consumer)
    except NotFoundError:
        return None
    return ConsumerBacklog(info.num_pending or 0, info.num_ack_pending or 0)
