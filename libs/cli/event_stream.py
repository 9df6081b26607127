"""Reading lifecycle events from JetStream, without leaving a trace there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import NoServersError
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from libs.common.messaging.streams import EVENTS_STREAM, EVENTS_SUBJECTS

_CONNECT_TIMEOUT_S = 3.0
# A server that has said how many events there are delivers them; a longer pause means that the connection is gone.
_NEXT_TIMEOUT_S = 10.0

Envelope = dict[str, Any]


class EventsUnavailableError(Exception):
    """The events cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events. `type` matches the full type or a run of its parts: `created`, `env.created`."""

    environment: str | None = None
    type: str | None = None
    since: datetime | None = None

    @property
    def subject(self) -> str:
        """Everything about one environment carries its id as the third token, so the server can filter."""
        return f"devpocket.*.{self.environment}.>" if self.environment else EVENTS_SUBJECTS

    def matches(self, event: Envelope) -> bool:
        """Whether the type fits."""
        if self.type is None:
            return True
        return f".{self.type.strip('.')}." in f".{event.get('type', '')}."


async def past_events(url: str, query: EventQuery, limit: int | None) -> list[Envelope]:
    """What has happened until now, oldest first; with `limit` the newest so many. Raises EventsUnavailableError."""
    found: deque[Envelope] = deque(maxlen=limit)
    async with _subscribed(url, query, everything=True) as (subscription, waiting):
        pending = waiting
        while pending > 0:
            message = await subscription.next_msg(timeout=_NEXT_TIMEOUT_S)
            pending = message.metadata.num_pending
            event = decode(message)
            if query.matches(event):
                found.append(event)
    return list(found)


async def follow_events(url: str, query: EventQuery, limit: int | None, show: Callable[[Envelope], None]) -> None:
    """Every event as it comes, with `since` past ones first. Raises EventsUnavailableError."""
    shown = 0
    async with _subscribed(url, query, everything=False) as (subscription, _):
        async for message in subscription.messages:
            event = decode(message)
            if query.matches(event):
                show(event)
                shown += 1
                if shown == limit:
                    return


def decode(message: Msg) -> Envelope:
    """The envelope with its place in the stream as `sequence`; what cannot be read shows as such."""
    sequence = message.metadata.sequence.stream
    try:
        event = json.loads(message.data)
        if not isinstance(event, dict):
            raise TypeError("an envelope is a JSON object")
    except (ValueError, TypeError) as error:
        event = {"type": "unreadable", "subject": message.subject, "error": str(error)}
    return {**event, "sequence": sequence}


@contextlib.asynccontextmanager
async def _subscribed(url: str, query: EventQuery, *, everything: bool) -> AsyncIterator[tuple[Subscription, int]]:
    """A subscription in stream order, and how many events wait for it. `everything` starts at the first event."""
    servers = [part.strip() for part in url.split(",")]
    try:
        connection = await nats.connect(
            servers, connect_timeout=_CONNECT_TIMEOUT_S, allow_reconnect=False, error_cb=_ignore
        )
    except (OSError, NoServersError, nats.errors.Error, TimeoutError) as error:
        raise EventsUnavailableError(f"NATS cannot be reached: {error or type(error).__name__}") from error
    try:
        jetstream = connection.jetstream()
        subscription = await jetstream.subscribe(
            query.subject, stream=EVENTS_STREAM, ordered_consumer=True, config=_start(query, everything=everything)
        )
        info = await subscription.consumer_info()
        # Delivery has begun, so what waits here already counts as delivered there.
        yield subscription, (info.num_pending or 0) + (info.delivered.consumer_seq if info.delivered else 0)
    except NotFoundError as error:
        raise EventsUnavailableError(f"there is no stream {EVENTS_STREAM} yet; the services make it") from error
    except nats.errors.Error as error:
        raise EventsUnavailableError(f"reading events failed: {error or type(error).__name__}") from error
    finally:
        with contextlib.suppress(nats.errors.Error, asyncio.CancelledError):
            await connection.close()


def _start(query: EventQuery, *, everything: bool) -> ConsumerConfig:
    if query.since is not None:
        return ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=query.since)
    return ConsumerConfig(deliver_policy=DeliverPolicy.ALL if everything else DeliverPolicy.NEW)


async def _ignore(_error: Exception) -> None:
    """Errors of the connection reach the caller through its calls."""
