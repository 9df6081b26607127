"""A consumer that lives as long as one reader, fetched from in large batches: the reader sets the pace, so memory is
flat. nats-py's own `fetch` starts a task per message, which costs most of the speed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from libs.common.ids import new_id

BATCH = 500
# Bounds what one batch of large messages takes; more than the largest message a server accepts by default.
_BATCH_BYTES = 8 << 20
# The consumer of a reader that died must not stay.
_FORGET_AFTER_S = 30.0
# The server ends a request that cannot be filled; when it says nothing for longer, it is gone.
_GRACE_S = 5.0
_LOOK_EVERY_S = 0.5
_ACK_PREFIX = "$JS.ACK."
# Nothing there, or the time is over.
_NOTHING_MORE = ("404", "408")


class SilentServerError(Exception):
    """The server does not answer, or has forgotten the consumer."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin: at a place, at a time, or at the first message. `after` counts places of this stream."""

    after: int | None = None
    since: datetime | None = None
    new_only: bool = False

    def configure(self, config: ConsumerConfig) -> ConsumerConfig:
        """The consumer's configuration with this start."""
        if self.after is not None:
            return config.evolve(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=max(self.after, 0) + 1)
        if self.since is not None:
            return config.evolve(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=self.since)
        return config.evolve(deliver_policy=DeliverPolicy.NEW if self.new_only else DeliverPolicy.ALL)


class PullConsumer:
    """`waiting` is how many messages there were for it when it was made."""

    def __init__(self, client: NatsClient, stream: str, name: str, inbox: str, waiting: int) -> None:
        self.waiting = waiting
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        self._inbox = inbox
        self._reconnects = client.stats["reconnects"]
        self._requests = 0
        self._wanted = 0
        self._arrived: list[Msg] = []
        self._complete = asyncio.Event()
        self._refusal: str | None = None

    async def fetch(self, most: int, wait_s: float) -> list[Msg]:
        """The next messages, `most` or fewer: what has come when `wait_s` are over. Raises SilentServerError."""
        self._requests += 1
        self._wanted, self._arrived = most, []
        self._refusal = None
        self._complete.clear()
        max_bytes = max(_BATCH_BYTES, 2 * self._client.max_payload)
        request = {"batch": most, "expires": int(wait_s * 1e9), "max_bytes": max_bytes}
        reply = f"{self._inbox}.{self._requests}"
        await self._client.publish(self._subject, json.dumps(request).encode(), reply=reply)
        await self._until_complete(wait_s + _GRACE_S)
        if self._refusal is not None and not self._arrived:
            raise SilentServerError(self._refusal)
        return self._arrived

    async def _until_complete(self, most_s: float) -> None:
        deadline = time.monotonic() + most_s
        while not self._complete.is_set():
            # A lost connection says nothing by itself.
            if not self._client.is_connected or self._client.stats["reconnects"] != self._reconnects:
                raise SilentServerError("the connection is lost")
            if time.monotonic() > deadline:
                raise SilentServerError("the server does not answer")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._complete.wait()

    async def on_message(self, message: Msg) -> None:
        """What the server sends: messages of the stream, and a status at the end of a request."""
        if message.reply.startswith(_ACK_PREFIX):
            self._arrived.append(message)
            if len(self._arrived) >= self._wanted:
                self._complete.set()
        elif message.subject == f"{self._inbox}.{self._requests}":
            headers = message.headers or {}
            status, text = headers.get("Status", ""), headers.get("Description", "")
            if status not in _NOTHING_MORE and "maxbytes" not in text.lower():
                self._refusal = text or "nobody serves this stream"
            self._complete.set()


@asynccontextmanager
async def consuming(js: JetStreamContext, stream: str, subject: str, start: Start) -> AsyncIterator[PullConsumer]:
    """A consumer for the length of the block. Raises what nats-py raises."""
    client: NatsClient = js._nc
    name, inbox = new_id(), client.new_inbox()
    config = ConsumerConfig(
        name=name,
        filter_subject=subject,
        ack_policy=AckPolicy.NONE,
        inactive_threshold=_FORGET_AFTER_S,
        mem_storage=True,
    )
    info = await js.add_consumer(stream, start.configure(config))
    consumer = PullConsumer(client, stream, name, inbox, info.num_pending or 0)
    subscription = await client.subscribe(f"{inbox}.*", cb=consumer.on_message)
    try:
        yield consumer
    finally:
        with contextlib.suppress(TimeoutError, NatsError):
            if client.is_connected:
                await subscription.unsubscribe()
                await js.delete_consumer(stream, name)
