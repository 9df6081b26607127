"""What is there when the run is over: both streams, all databases, and what the runtime has left and still runs."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import nats
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from pymongo import MongoClient

from libs.common.contracts.events import Event, UnknownEventError
from libs.common.messaging.dead_letter import CONSUMER, ERROR_MESSAGE, ERROR_TYPE, ORIGINAL_SEQUENCE
from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM
from libs.common.messaging.subscriptions import MalformedEventError, decoded
from tests.chaos.ground import Ground, Thing
from tests.chaos.stack import SERVICE_NAMES

Document = dict[str, Any]
_BATCH = 500
_FETCH_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the event stream. `event` is None when nobody can make one of it."""

    sequence: int
    subject: str
    message_id: str
    event: Event | None

    @property
    def name(self) -> str:
        """`env.created` of `devpocket.env.created.v1`; empty when it is no event."""
        return ".".join(self.event.type.split(".")[1:3]) if self.event is not None else ""

    @property
    def aggregate(self) -> str:
        """`env` of `devpocket.env.created.v1`."""
        return self.name.partition(".")[0]

    @property
    def data(self) -> Document:
        """The event's data."""
        return self.event.data if self.event is not None else {}


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message of the dead-letter stream: which consumer gave up which message, and why."""

    consumer: str
    sequence: int
    error: str


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable consumer: `waiting` messages are not delivered yet, `unanswered` ones not acknowledged."""

    name: str
    subject: str
    waiting: int
    unanswered: int


@dataclass(frozen=True)
class Evidence:
    """`databases` by service and collection. `things`: what the runtime has of environments.

    `sandboxes`: pids by environment id, one for each sandbox.
    """

    stream: list[Message] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)
    databases: Mapping[str, Mapping[str, list[Document]]] = field(default_factory=dict)
    things: list[Thing] = field(default_factory=list)
    sandboxes: Mapping[str, list[int]] = field(default_factory=dict)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def documents(self, service: str, collection: str) -> dict[str, Document]:
        """By id."""
        return self._documents.get((service, collection), {})

    def about(self, aggregate_id: str, *aggregates: str) -> list[Message]:
        """The events about one aggregate, in the order of the stream."""
        return [message for message in self._by_subject.get(aggregate_id, []) if message.aggregate in aggregates]

    def caused_by(self, correlation_id: str) -> list[Message]:
        """The events that one request started."""
        return self._by_correlation.get(correlation_id, [])

    @cached_property
    def events(self) -> list[Message]:
        """The stream without what is no event."""
        return [message for message in self.stream if message.event is not None]

    @cached_property
    def _documents(self) -> dict[tuple[str, str], dict[str, Document]]:
        return {
            (service, name): {document["_id"]: document for document in documents}
            for service, collections in self.databases.items()
            for name, documents in collections.items()
        }

    @cached_property
    def _by_subject(self) -> dict[str, list[Message]]:
        return _grouped(self.events, lambda event: event.subject)

    @cached_property
    def _by_correlation(self) -> dict[str, list[Message]]:
        return _grouped(self.events, lambda event: event.correlationid or "")


def _grouped(messages: list[Message], key: Callable[[Event], str]) -> dict[str, list[Message]]:
    groups: dict[str, list[Message]] = defaultdict(list)
    for message in messages:
        if message.event is not None:
            groups[key(message.event)].append(message)
    return groups


async def gather(settings: Mapping[str, str], ground: Ground, *, with_streams: bool = True) -> Evidence:
    """Look at everything; `settings` are those of the stack. Without the streams it is quick."""
    client = await nats.connect(settings["NATS_URL"])
    try:
        js = client.jetstream()
        stream = [_message(raw) for raw in await _all(js, EVENTS_STREAM)] if with_streams else []
        dead = [_dead_letter(raw) for raw in await _all(js, DEAD_LETTER_STREAM)] if with_streams else []
        consumers = await durable_consumers(js)
    finally:
        await client.close()
    alive = await asyncio.to_thread(ground.living)
    return Evidence(
        stream=stream,
        dead=dead,
        consumers=consumers,
        databases=await asyncio.to_thread(_databases, settings),
        things=await ground.things(),
        sandboxes={key: sorted(namespaces.values()) for key, namespaces in alive.items()},
    )


async def durable_consumers(js: JetStreamContext) -> list[Consumer]:
    """Those of the event stream. Others belong to readers and come and go."""
    return [
        Consumer(info.name, info.config.filter_subject or ">", info.num_pending or 0, info.num_ack_pending or 0)
        for info in await js.consumers_info(EVENTS_STREAM)
        if info.config.durable_name
    ]


async def _all(js: JetStreamContext, stream: str) -> list[Any]:
    left = (await js.stream_info(stream)).state.messages
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL, inactive_threshold=60.0)
    created = await js.add_consumer(stream, config)
    subscription = await js.pull_subscribe_bind(consumer=created.name, stream=stream)
    found: list[Any] = []
    while len(found) < left:
        found += await subscription.fetch(min(_BATCH, left - len(found)), timeout=_FETCH_TIMEOUT_S)
    await subscription.unsubscribe()
    await js.delete_consumer(stream, created.name)
    return found


def _message(raw: Any) -> Message:
    sequence = raw.metadata.sequence.stream
    try:
        event = decoded(raw.data, subject=raw.subject, sequence=sequence).event
    except (MalformedEventError, UnknownEventError):
        event = None
    return Message(sequence, raw.subject, (raw.headers or {}).get("Nats-Msg-Id", ""), event)


def _dead_letter(raw: Any) -> DeadLetter:
    headers = raw.headers or {}
    error = f"{headers.get(ERROR_TYPE)}: {headers.get(ERROR_MESSAGE)}"
    return DeadLetter(headers.get(CONSUMER, ""), int(headers.get(ORIGINAL_SEQUENCE, "0")), error)


def _databases(settings: Mapping[str, str]) -> dict[str, dict[str, list[Document]]]:
    prefix = settings.get("DATABASE_NAME") or "devpocket"
    client: MongoClient[Document] = MongoClient(settings["MONGODB_URL"], tz_aware=True)
    with client:
        databases = {service: client[f"{prefix}_{service}"] for service in SERVICE_NAMES}
        return {
            service: {name: list(database[name].find()) for name in database.list_collection_names()}
            for service, database in databases.items()
        }
