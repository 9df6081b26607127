"""Tells auth when and from where sessions and API keys were used last: at most once a while for each, in batches."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import structlog

from libs.common.clock import utc_now
from libs.common.contracts.telemetry import Sighting, sighting_subject
from libs.common.security.principal import Principal
from libs.common.tasks import end_tasks

_TELL_EVERY_S = 30.0
_LOOK_EVERY_S = 1.0
_REMEMBERED = 20_000

Publish = Callable[[str, bytes], Awaitable[None]]

log = structlog.get_logger(__name__)


class Sightings:
    """Counts on core NATS: what cannot be told is told at the next use, or never."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._told: OrderedDict[str, float] = OrderedDict()
        self._waiting: dict[str, Sighting] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, principal: Principal, address: str | None) -> None:
        """This caller was here. Costs next to nothing while it was told of just now."""
        name = principal.key_id or principal.session_id
        now = time.monotonic()
        if now - self._told.get(name, float("-inf")) < _TELL_EVERY_S:
            return
        self._told[name] = now
        self._told.move_to_end(name)
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        self._waiting[name] = Sighting(
            user_id=principal.user_id,
            kind="session" if principal.key_id is None else "api_key",
            id=name,
            at=utc_now(),
            address=address,
        )

    async def start(self) -> None:
        """Tell in the background until `stop`."""
        self._task = asyncio.create_task(self._tell_forever())

    async def stop(self) -> None:
        """Tell no more."""
        if self._task is not None:
            await end_tasks([self._task])

    async def _tell_forever(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            waiting, self._waiting = self._waiting, {}
            try:
                for seen in waiting.values():
                    await self._publish(sighting_subject(seen.user_id), seen.model_dump_json().encode())
            except Exception as error:
                log.warning("last use of sessions not told", count=len(waiting), error=repr(error))
