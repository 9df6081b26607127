"""Durable consumers that stay: one that has vanished from the server is made again.

FastStream makes consumers once, at start. When the server has lost one (an operator removed it, the storage was lost
or restored from an older copy), fetching fails for ever without an error anybody sees.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import structlog
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

from libs.common.messaging.streams import EVENTS_STREAM, ensure_streams
from libs.common.settings import CommonSettings

# A question and an answer per consumer; an outage of this kind is rare, and noticed late is still noticed.
LOOK_EVERY_S = 10.0

log = structlog.get_logger(__name__)


class ConsumerKeeper:
    """Looks after one service's durable consumers."""

    def __init__(self, settings: CommonSettings, *, look_every_s: float = LOOK_EVERY_S) -> None:
        self._settings = settings
        self._look_every_s = look_every_s
        self._configs: list[ConsumerConfig] = []
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, name: str, subject: str, config: ConsumerConfig) -> None:
        """Keep this one."""
        self._configs.append(replace(config, durable_name=name, filter_subject=subject))

    @property
    def names(self) -> list[str]:
        """Of those that are kept."""
        return [config.durable_name or "" for config in self._configs]

    def start(self, js: JetStreamContext) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._keep(js))

    def look_now(self) -> None:
        """The connection is back: do not wait for the next round."""
        self._look.set()

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self, js: JetStreamContext) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_every_s):
                    await self._look.wait()
            self._look.clear()
            for config in self._configs:
                try:
                    await self._ensure(js, config)
                except Exception as error:
                    log.debug("consumer cannot be looked at now", consumer=config.durable_name, error=repr(error))

    async def _ensure(self, js: JetStreamContext, config: ConsumerConfig) -> None:
        try:
            await js.consumer_info(EVENTS_STREAM, config.durable_name or "")
        except NotFoundError:
            await ensure_streams(js, self._settings)
            await js.add_consumer(EVENTS_STREAM, config)
            log.warning("consumer had vanished and is made again", consumer=config.durable_name)
