"""How much environments use."""

from __future__ import annotations

from datetime import datetime, timedelta

from libs.common.clock import Clock, utc_now
from libs.common.contracts.telemetry import UsageSample
from services.envs.entities import Usage
from services.envs.ports import EnvironmentStore, UsageHistory

# What a chart on a phone can show; a week has 10,080 minutes.
MAX_POINTS = 1_000
# Of samples that claim to be from the future, by a clock that runs ahead.
_MAX_CLOCK_SKEW = timedelta(minutes=5)


class UsageService:
    """Takes samples in and gives their history out."""

    def __init__(self, store: EnvironmentStore, history: UsageHistory, clock: Clock = utc_now) -> None:
        self._store = store
        self._history = history
        self._clock = clock

    async def record(self, sample: UsageSample) -> None:
        """Keep a sample; one about an unknown environment, or from the future, is dropped."""
        if sample.sampled_at > self._clock() + _MAX_CLOCK_SKEW:
            return
        usage = Usage(sample.cpu_millis, sample.memory_bytes, sample.storage_bytes, sample.sampled_at)
        if await self._store.set_usage(sample.environment_id, usage):
            await self._history.add(sample)

    async def history(self, environment_id: str, hours: int) -> list[Usage]:
        """At most MAX_POINTS points of the last hours, in order, evenly thinned; the newest is always there."""
        since: datetime = self._clock() - timedelta(hours=hours)
        points = await self._history.since(environment_id, since)
        step = -(-len(points) // MAX_POINTS) or 1
        return points[::-1][::step][::-1]
