"""Durable consumers that stay: one that has vanished from the server is made again, one of an older version is changed.

FastStream makes consumers once, at start. When the server has lost one (an operator removed it, the storage was lost
or restored from an older copy), fetching fails for ever without an error anybody sees. And one that exists it never
changes: a replica of a version whose consumers are configured in another way does so here, and says which way that is
by a number in the consumer's description, so that replicas of the version before, still up, leave it alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import structlog
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from nats.js.errors import APIError, NotFoundError

from libs.common.messaging.streams import EVENTS_STREAM, ensure_streams
from libs.common.settings import CommonSettings
from libs.common.tasks import end_tasks

# One more whenever what `Bus.subscribe` asks of consumers changes. What nats-server changes without losing the place:
# ack_wait, max_ack_pending, max_deliver, filter_subject. Anything else needs a consumer with another name.
REVISION = 1
_REVISION_IS = "DevPocket revision "
# A question and an answer per consumer; an outage of this kind is rare, and noticed late is still noticed.
LOOK_EVERY_S = 10.0

log = structlog.get_logger(__name__)


class ConsumerKeeper:
    """Looks after one service's durable consumers."""

    def __init__(self, settings: CommonSettings, *, look_every_s: float = LOOK_EVERY_S) -> None:
        self._settings = settings
        self._look_every_s = look_every_s
        self._configs: list[ConsumerConfig] = []
        self._refused: set[str | None] = set()
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
        """Begin to look, at once."""
        self._look.set()
        self._task = asyncio.create_task(self._keep(js))

    def look_now(self) -> None:
        """The connection is back: do not wait for the next round."""
        self._look.set()

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            await end_tasks([self._task])

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
            info = await js.consumer_info(EVENTS_STREAM, config.durable_name or "")
        except NotFoundError:
            await ensure_streams(js, self._settings)
            await js.add_consumer(EVENTS_STREAM, config)
            log.warning("consumer had vanished and is made again", consumer=config.durable_name)
            return
        if _revision_of(info.config) < REVISION and config.durable_name not in self._refused:
            await self._change(js, info.config, config)

    async def _change(self, js: JetStreamContext, current: ConsumerConfig, wanted: ConsumerConfig) -> None:
        fields = ("ack_wait", "max_ack_pending", "max_deliver", "filter_subject", "description")
        changed = {field: (getattr(current, field), getattr(wanted, field)) for field in fields}
        differing = {field: pair for field, pair in changed.items() if pair[0] != pair[1]}
        try:
            await js.add_consumer(
                EVENTS_STREAM, replace(current, **{field: pair[1] for field, pair in differing.items()})
            )
        except APIError as error:
            # Asking again would change nothing; the consumer works as it did.
            self._refused.add(wanted.durable_name)
            log.error("consumer cannot be changed", consumer=wanted.durable_name, changes=differing, error=repr(error))
            return
        log.info("consumer is changed for this version", consumer=wanted.durable_name, changes=differing)


def described(revision: int) -> str:
    """The description of a consumer that is configured as of this revision."""
    return f"{_REVISION_IS}{revision}"


def _revision_of(config: ConsumerConfig) -> int:
    number = (config.description or "").removeprefix(_REVISION_IS)
    return int(number) if number.isdecimal() else 0
