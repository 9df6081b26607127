"""Wishes come in: keep the newest and have somebody look at it."""

from __future__ import annotations

from collections.abc import Callable

from libs.common.clock import Clock
from libs.common.context import current_cause
from libs.common.contracts.events import EnvironmentUpdated, EnvironmentWish
from libs.common.telemetry import trace_headers
from services.orchestrator.domain.model import WishCause
from services.orchestrator.ports import EnvironmentStore


class Wishes:
    """Takes wishes in any order and any number of times; `poke` is told which environment wants a look."""

    def __init__(self, store: EnvironmentStore, poke: Callable[[str], None], clock: Clock) -> None:
        self._store = store
        self._poke = poke
        self._clock = clock

    async def accept(self, wish: EnvironmentWish) -> bool:
        """Whether it was news."""
        news = await self._store.accept(wish, _cause_of(wish), self._clock())
        if news:
            self._poke(wish.environment_id)
        return news


def _cause_of(wish: EnvironmentWish) -> WishCause | None:
    # A changed name or variable starts no work, so the work going on keeps the cause it has.
    if isinstance(wish, EnvironmentUpdated):
        return None
    cause = current_cause()
    return WishCause(cause.correlation_id, cause.causation_id, trace_headers())
