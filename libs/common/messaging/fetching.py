"""Fetching from a durable consumer without a pause.

nats-py's own `fetch` of more than one message may keep what has come back until the whole request expires, seconds
later, and may leave a request behind that swallows the next message. Here a request stays open across fetches: what
the server sends is handed out at once, and the next request is made when that one is filled, expired or refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from typing import Any

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import BadSubscriptionError, ConnectionClosedError, ConnectionDrainingError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext

_ACK_PREFIX = "$JS.ACK."
# Statuses that end a request as it should end: nothing there, or its time is over.
_ENDED_WELL = ("404", "408")
# After a refusal (consumer gone, server going down) asking at once would be asking in a circle.
_AFTER_REFUSAL_S = 0.2
# A request that the server has forgotten, because it was restarted, ends by itself on this side.
_GRACE_S = 1.0


class PromptJetStream(JetStreamContext):
    """A JetStream context for FastStream: its durable pull subscriptions deliver at once."""

    def __init__(self, client: NatsClient) -> None:
        super().__init__(client)
        self._opened: list[PromptSubscription] = []
        # Delivered, and nobody works on it yet; by the subject that acknowledges.
        self._untaken: dict[str, Msg] = {}

    def taken(self, message: Msg) -> None:
        """Somebody works on it, and will answer for it."""
        self._untaken.pop(message.reply, None)

    async def give_back(self) -> None:
        """After the last fetch: what nobody works on goes to another replica now, and not after the ack wait.

        nats-server 2.9 gives the first of it to a request that is open, though nobody listens for the answer any more.
        Such requests it forgets when it is asked about the consumer.
        """
        if self._nc.is_connected:
            asked = (self.consumer_info(opened.stream, opened.consumer) for opened in self._opened)
            await asyncio.gather(*asked, return_exceptions=True)
        for message in self._untaken.values():
            with contextlib.suppress(Exception):
                await message.nak()
        self._untaken.clear()

    def reconnected(self) -> None:
        """The server has forgotten what was asked for: ask again now, not when the time is over."""
        for subscription in self._opened:
            subscription.look_again()

    async def pull_subscribe(self, *args: Any, **options: Any) -> Any:
        """As in nats-py: makes the durable consumer if it is missing, then reads from it."""
        made = await super().pull_subscribe(*args, **options)
        await made.unsubscribe()
        opened = await PromptSubscription.open(self._nc, options["stream"], options["durable"], self._untaken)
        self._opened.append(opened)
        return opened


class PromptSubscription:
    """What FastStream needs of a pull subscription."""

    def __init__(
        self, client: NatsClient, stream: str, consumer: str, inbox: str, untaken: dict[str, Msg] | None = None
    ) -> None:
        self.stream = stream
        self.consumer = consumer
        self._client = client
        self._untaken = untaken if untaken is not None else {}
        self._request_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = inbox
        self._arrived: deque[Msg] = deque()
        self._changed = asyncio.Event()
        self._subscription: Subscription | None = None
        self._requests = 0
        self._open_until = 0.0
        self._outstanding = 0
        self._reconnects = 0
        self._refused_at = 0.0

    @classmethod
    async def open(
        cls, client: NatsClient, stream: str, consumer: str, untaken: dict[str, Msg] | None = None
    ) -> PromptSubscription:
        """Listen; nothing is asked for yet. What arrives is noted in `untaken`."""
        inbox = client.new_inbox()
        opened = cls(client, stream, consumer, inbox, untaken)
        opened._subscription = await client.subscribe(f"{inbox}.*", cb=opened._on_message)
        return opened

    async def fetch(self, batch: int = 1, timeout: float | None = 5) -> list[Msg]:
        """What is there, `batch` at most; waits for the first. Raises nats.errors.TimeoutError when none has come."""
        wait_s = timeout or 5.0
        deadline = time.monotonic() + wait_s
        while not self._arrived:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise NatsTimeoutError
            # Before asking: what arrives while the request is on its way must end the wait.
            self._changed.clear()
            if not self._is_open:
                await self._request(batch, wait_s)
            until = min(deadline, self._open_until)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(until - time.monotonic(), 0.0) + 0.001):
                    await self._changed.wait()
        return [self._arrived.popleft() for _ in range(min(batch, len(self._arrived)))]

    def look_again(self) -> None:
        """Whoever waits in `fetch` sees whether the request is still good."""
        self._changed.set()

    async def unsubscribe(self, limit: int = 0) -> None:
        """Listen no more, once all that the server has sent until then has arrived."""
        if self._subscription is not None:
            with contextlib.suppress(
                ConnectionClosedError, BadSubscriptionError, ConnectionDrainingError, NatsTimeoutError
            ):
                await self._subscription.drain()  # type: ignore[no-untyped-call]

    @property
    def _is_open(self) -> bool:
        """Whether a request is with the server that messages may come for."""
        return (
            self._outstanding > 0
            and time.monotonic() < self._open_until
            and self._reconnects == self._client.stats["reconnects"]
        )

    async def _request(self, batch: int, expires_s: float) -> None:
        pause_s = self._refused_at + _AFTER_REFUSAL_S - time.monotonic()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        self._requests += 1
        self._outstanding = batch
        self._reconnects = self._client.stats["reconnects"]
        self._open_until = time.monotonic() + expires_s + _GRACE_S
        wanted = json.dumps({"batch": batch, "expires": int(expires_s * 1e9)}).encode()
        await self._client.publish(self._request_subject, wanted, reply=f"{self._inbox}.{self._requests}")

    async def _on_message(self, message: Msg) -> None:
        if message.reply.startswith(_ACK_PREFIX):
            self._arrived.append(message)
            self._untaken[message.reply] = message
            self._outstanding -= 1
        elif message.subject == f"{self._inbox}.{self._requests}":
            # The end of the request at hand; that of an earlier one has nothing to say any more.
            self._outstanding = 0
            if (message.headers or {}).get("Status") not in _ENDED_WELL:
                self._refused_at = time.monotonic()
        self._changed.set()
