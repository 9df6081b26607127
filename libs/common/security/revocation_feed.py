"""Revocations as events: heard as they come, and read back from the stream when some may have been missed.

Redis knows nothing after it has lost its data, and a plain subscription hears nothing while NATS is away. The stream
holds them for longer than any token lives.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import datetime, timedelta

import structlog
from nats.aio.msg import Msg

from libs.common.clock import utc_now
from libs.common.history.reader import StreamReader
from libs.common.messaging.broker import Bus
from libs.common.messaging.streams import EVENTS_STREAM
from libs.common.security.revocation import SUBJECT, Revocations
from libs.common.tasks import end_tasks

_LOOK_EVERY_S = 1.0
# A connection may have been dead for a minute before anybody notices, and clocks differ.
_MARGIN = timedelta(minutes=2)

log = structlog.get_logger(__name__)


class RevocationFeed:
    """Tells `revocations` what auth says on the bus. `token_life_s`: how long a revocation matters, in seconds."""

    def __init__(self, bus: Bus, revocations: Revocations, *, token_life_s: float) -> None:
        self._bus = bus
        self._revocations = revocations
        self._token_life = timedelta(seconds=token_life_s)
        self._complete_until: datetime | None = None
        self._reconnects = 0
        self._task: asyncio.Task[None] | None = None

    async def hear(self) -> None:
        """From now on. Call after the bus has started."""

        async def on_message(message: Msg) -> None:
            self._revocations.on_message(message.data)

        await self._bus.client.subscribe(SUBJECT, cb=on_message)

    async def recall(self) -> None:
        """Learn what was said before, as far as it matters. Raises EventsUnavailableError."""
        began, reconnects = utc_now(), self._bus.client.stats["reconnects"]
        since = began - self._token_life if self._complete_until is None else self._complete_until - _MARGIN
        events = StreamReader(self._bus.jetstream).read(EVENTS_STREAM, SUBJECT, since=since)
        async with aclosing(events):
            async for item in events:
                self._revocations.on_message(item.payload)
        self._complete_until, self._reconnects = began, reconnects

    async def start(self) -> None:
        """Recall after every time that NATS was away, until `stop`."""
        self._task = asyncio.create_task(self._keep_complete())

    async def stop(self) -> None:
        """Stop recalling."""
        if self._task is not None:
            await end_tasks([self._task])

    async def _keep_complete(self) -> None:
        client = self._bus.client
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if not client.is_connected:
                continue
            if client.stats["reconnects"] == self._reconnects:
                self._complete_until = utc_now()
                continue
            try:
                await self.recall()
            except Exception as error:
                log.warning("revocations not read back yet", error=repr(error))
