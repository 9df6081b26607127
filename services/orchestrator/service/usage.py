"""Usage samples of running environments; replicas share the work by claiming each sample."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from libs.common.clock import Clock
from libs.common.contracts.telemetry import UsageSample
from libs.common.tasks import end_tasks
from libs.runtime.port import WorkspaceNotFoundError, WorkspaceNotRunningError
from services.orchestrator.domain.model import Environment
from services.orchestrator.ports import EnvironmentStore, Fleet, UsageSink
from services.orchestrator.service.dispatch import Dispatcher
from services.orchestrator.service.loops import repeat

_AT_A_TIME = 8
_BATCH = 500
_STATS_TIMEOUT_S = 5.0
_LOOKS_PER_INTERVAL = 5

log = structlog.get_logger(__name__)


class UsageSampler:
    """Takes a sample of every running environment each `interval_s` seconds.

    `wake` is set when one has just become ready: its first sample is taken at once.
    """

    def __init__(
        self,
        store: EnvironmentStore,
        fleet: Fleet,
        sink: UsageSink,
        dispatcher: Dispatcher,
        clock: Clock,
        *,
        interval_s: float,
        wake: asyncio.Event,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._sink = sink
        self._dispatcher = dispatcher
        self._clock = clock
        self._interval_s = interval_s
        self._wake = wake
        self._slots = asyncio.Semaphore(_AT_A_TIME)
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Go on until `stop`."""
        look_s = self._interval_s / _LOOKS_PER_INTERVAL
        self._loop = asyncio.create_task(repeat("usage", look_s, self.sample_all, wake=self._wake))

    async def stop(self) -> None:
        """End at once."""
        if self._loop is not None:
            await end_tasks([self._loop])

    async def sample_all(self) -> None:
        """One sample of every environment whose last one is old."""
        before = self._clock() - timedelta(seconds=self._interval_s)
        due = await self._store.unsampled(before, _BATCH)
        await asyncio.gather(*(self._sample(environment) for environment in due))

    async def _sample(self, environment: Environment) -> None:
        async with self._slots:
            try:
                await self._claim_and_publish(environment)
            except (WorkspaceNotRunningError, WorkspaceNotFoundError):
                # It should run: somebody better has a look.
                self._dispatcher.poke(environment.id, force=True)
            except Exception as error:
                log.warning("no usage sample", environment_id=environment.id, error=repr(error))

    async def _claim_and_publish(self, environment: Environment) -> None:
        now = self._clock()
        before = now - timedelta(seconds=self._interval_s)
        if not await self._store.claim_sample(environment.id, before, now):
            return
        async with asyncio.timeout(_STATS_TIMEOUT_S):
            stats = await self._fleet.stats(environment.ref)
        await self._sink.publish(
            UsageSample(
                environment_id=environment.id,
                sampled_at=stats.sampled_at,
                cpu_millis=stats.cpu_millis,
                memory_bytes=stats.memory_bytes,
                storage_bytes=stats.storage_bytes,
            )
        )
