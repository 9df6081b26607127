"""Who is reconciled when: on an event, on a change in the runtime, and by a scan that forgets nobody.

One environment is in work once at most in this process, and a bounded number at a time; the lease does the same across
replicas.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import dataclass
from typing import Protocol

import structlog

from libs.common.clock import Clock
from libs.runtime.port import WorkspacePhase
from services.orchestrator.ports import EnvironmentStore, Fleet
from services.orchestrator.service.loops import repeat
from services.orchestrator.service.reconcile import Reconciled

_WATCH_AGAIN_S = 1.0
# A watch that holds for so long is one.
_LASTS_S = 1.0
_BATCHES_AHEAD = 4
_SEEN_PER_TAKEN = 4
_CANCEL_S = 1.0
_USER, _HOUSEKEEPING = 0, 1

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """`concurrency`: environments in work at a time. `finish_s`: what work at hand gets to finish on shutdown."""

    concurrency: int
    scan_interval_s: float
    finish_s: float


class Reconciles(Protocol):
    """See Reconciler."""

    async def reconcile(
        self, environment_id: str, *, only_if_due: bool = False, nudge: asyncio.Event | None = None
    ) -> Reconciled:
        """Returns once nothing is left to do now, or somebody else does it. Raises what the database raises."""
        ...


class Dispatcher:
    """Queues environments and has the reconciler work on them."""

    def __init__(self, reconciler: Reconciles, store: EnvironmentStore, fleet: Fleet, clock: Clock, pace: Pace) -> None:
        self._reconciler = reconciler
        self._store = store
        self._fleet = fleet
        self._clock = clock
        self._pace = pace
        # Rank, number, environment: users first, else in the order of asking.
        self._queue: asyncio.PriorityQueue[tuple[int, int, str]] = asyncio.PriorityQueue()
        self._numbers = itertools.count()
        # Waiting in the queue; True when it wants a look even if the store says that nothing is due.
        self._waiting: dict[str, bool] = {}
        # In work; the event tells it that something has changed.
        self._working: dict[str, asyncio.Event] = {}
        self._again: dict[str, bool] = {}
        self._slots = asyncio.Semaphore(pace.concurrency)
        self._loops: list[asyncio.Task[None]] = []
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def wished(self, environment_id: str) -> None:
        """A user waits: look at this environment before all that nobody waits for, e.g. repairs after a restart."""
        if environment_id not in self._working:
            self._waiting.setdefault(environment_id, False)
            self._queue.put_nowait((_USER, next(self._numbers), environment_id))
        else:
            self.poke(environment_id)

    def poke(self, environment_id: str, *, force: bool = False) -> None:
        """Look at this environment soon; without `force` only if the store says that it is due."""
        nudge = self._working.get(environment_id)
        if nudge is not None:
            self._again[environment_id] = self._again.get(environment_id, False) or force
            nudge.set()
            return
        if environment_id not in self._waiting:
            self._queue.put_nowait((_HOUSEKEEPING, next(self._numbers), environment_id))
        self._waiting[environment_id] = self._waiting.get(environment_id, False) or force

    async def start(self) -> None:
        """Look at every environment once, then go on for ever."""
        await self.resync()
        self._loops = [
            asyncio.create_task(self._serve()),
            asyncio.create_task(repeat("scan", self._pace.scan_interval_s, self.scan)),
        ]
        for cluster_id in self._fleet.ids():
            self._watches[cluster_id] = asyncio.create_task(self._watch(cluster_id))

    async def stop(self) -> None:
        """Take nothing new, let the work at hand finish for a moment, then cancel it; its leases are given back."""
        await _end([*self._loops, *self._watches.values()])
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._pace.finish_s)
        await _end(list(self._tasks))

    async def follow(self, cluster_id: str) -> None:
        """Watch this cluster from now on, through the driver that the fleet has now; or no longer, when it is gone."""
        before = self._watches.pop(cluster_id, None)
        if before is not None:
            await _end([before])
        if cluster_id in self._fleet.ids():
            self._watches[cluster_id] = asyncio.create_task(self._watch(cluster_id))
        await self._resync_quietly(cluster_id)

    async def resync(self, cluster_id: str | None = None) -> None:
        """Look at every environment, or at those of one cluster, whatever the store says: the world may have changed
        while nobody watched."""
        for environment_id in await self._store.living(cluster_id):
            self.poke(environment_id, force=True)

    async def scan(self) -> None:
        """Find what is due: retries, regular looks, wishes that came to a replica that is dead now."""
        room = self._pace.concurrency * _BATCHES_AHEAD - len(self._waiting)
        if room <= 0:
            return
        due = await self._store.due(self._clock(), room * _SEEN_PER_TAKEN)
        # Replicas that all took the longest waiting ones would be in each other's way, and no faster than one.
        for environment_id in random.sample(due, min(room, len(due))):
            # In work means that it will look at the newest state before it ends.
            if environment_id not in self._working:
                self.poke(environment_id)

    async def _serve(self) -> None:
        while True:
            await self._slots.acquire()
            environment_id = await self._next()
            force = self._waiting.pop(environment_id)
            self._working[environment_id] = asyncio.Event()
            task = asyncio.create_task(self._work_on(environment_id, force=force))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _next(self) -> str:
        while True:
            _, _, environment_id = await self._queue.get()
            # One that became urgent while it waited is in the queue twice.
            if environment_id in self._waiting:
                return environment_id

    async def _work_on(self, environment_id: str, *, force: bool) -> None:
        try:
            await self._reconciler.reconcile(environment_id, only_if_due=not force, nudge=self._working[environment_id])
        except Exception as error:
            log.warning("not reconciled, the scan will retry", environment_id=environment_id, error=repr(error))
        finally:
            self._slots.release()
            del self._working[environment_id]
            again = self._again.pop(environment_id, None)
            if again is not None:
                # What came while it was worked on is news: a wish, or the end of a workspace.
                self.wished(environment_id)
                self._waiting[environment_id] = again

    async def _watch(self, cluster_id: str) -> None:
        """Workspaces that end by themselves are noticed at once; what a broken watch missed, a resync finds.

        It comes when the next watch lasts: to look at everything in a cluster that is away would be in vain.
        """
        catching_up: asyncio.Task[None] | None = None
        trouble = ""
        while True:
            try:
                async for observed in self._fleet.watch(cluster_id):
                    environment_id = observed.ref.environment_id
                    has_ended = observed.phase in (WorkspacePhase.STOPPED, WorkspacePhase.FAILED)
                    # One that came up while nobody waited for it need not wait for the next try.
                    is_up = observed.phase is WorkspacePhase.RUNNING and environment_id not in self._working
                    if has_ended or is_up:
                        self.poke(environment_id, force=True)
                log.info("runtime watch ended, watching again", cluster=cluster_id)
            except Exception as error:
                lasted = catching_up is None or catching_up.done()
                if lasted or repr(error) != trouble:
                    log.warning("runtime watch failed, watching again", cluster=cluster_id, error=repr(error))
                trouble = repr(error)
            finally:
                if catching_up is not None:
                    catching_up.cancel()
            await asyncio.sleep(_WATCH_AGAIN_S)
            catching_up = asyncio.create_task(self._catch_up(cluster_id))

    async def _catch_up(self, cluster_id: str) -> None:
        await asyncio.sleep(_LASTS_S)
        await self._resync_quietly(cluster_id)

    async def _resync_quietly(self, cluster_id: str) -> None:
        try:
            await self.resync(cluster_id)
        except Exception as error:
            log.warning("resync failed, the scan covers for it", error=repr(error))


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        # Bounded: a driver that does not let itself be cancelled must not keep the service from stopping.
        await asyncio.wait(tasks, timeout=_CANCEL_S)
