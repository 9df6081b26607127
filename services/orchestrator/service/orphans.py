"""Workspaces that belong to no environment we know.

A missing record proves nothing: the database may have been lost, or another one configured. So a workspace goes with
its volume only when we hold its tombstone, or the event stream says that its user had it deleted. Any other orphan
is stopped after a while, which frees what it uses, and its volume stays for an operator to judge.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from libs.common.clock import Clock
from libs.common.tasks import end_tasks
from libs.runtime.port import DriverError, ObservedWorkspace, WorkspacePhase
from services.orchestrator.ports import EnvironmentStore, Fleet, History
from services.orchestrator.service.dispatch import Dispatcher
from services.orchestrator.service.loops import repeat

_MIN_SCANS = 2

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Missing:
    since: datetime
    scans: int = 0
    told: bool = False


class OrphanCollector:
    """Looks through all clusters every `interval_s` seconds; an orphan is left alone for `grace_s`."""

    def __init__(
        self,
        store: EnvironmentStore,
        fleet: Fleet,
        history: History,
        dispatcher: Dispatcher,
        clock: Clock,
        *,
        interval_s: float,
        grace_s: float,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._history = history
        self._dispatcher = dispatcher
        self._clock = clock
        self._interval_s = interval_s
        self._grace = timedelta(seconds=grace_s)
        self._missing: dict[str, dict[str, _Missing]] = {}
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Go on until `stop`."""
        self._loop = asyncio.create_task(repeat("orphans", self._interval_s, self.scan))

    async def stop(self) -> None:
        """End at once; every call to the runtime may be cut short."""
        if self._loop is not None:
            await end_tasks([self._loop])

    async def scan(self) -> None:
        """Look at everything once; a cluster that cannot be asked has its turn later."""
        for cluster_id in self._fleet.ids():
            try:
                await self._scan(cluster_id)
            except DriverError as error:
                log.warning("no look for orphans", cluster=cluster_id, reason=error.reason, error=str(error))

    async def _scan(self, cluster_id: str) -> None:
        workspaces = {observed.ref.environment_id: observed for observed in await self._fleet.list(cluster_id)}
        # Nearly all belong to environments that live; each of the others is looked up by its id.
        living = set(await self._store.living(cluster_id))
        known = await self._store.buried([key for key in workspaces if key not in living])
        for environment_id, is_deleted in known.items():
            if is_deleted:
                self._dispatcher.poke(environment_id, force=True)
        unknown = {key: observed for key, observed in workspaces.items() if key not in living and key not in known}
        before = self._missing.get(cluster_id, {})
        self._missing[cluster_id] = {key: before.get(key) or _Missing(self._clock()) for key in unknown}
        for environment_id, observed in unknown.items():
            missing = self._missing[cluster_id][environment_id]
            missing.scans += 1
            if missing.scans >= _MIN_SCANS and self._clock() - missing.since >= self._grace:
                await self._collect(observed, missing)

    async def _collect(self, observed: ObservedWorkspace, missing: _Missing) -> None:
        environment_id = observed.ref.environment_id
        if await self._history.was_deleted(environment_id):
            log.warning("orphan is deleted: its user had asked for it", environment_id=environment_id)
            await self._fleet.delete(observed.ref)
            return
        if observed.phase in (WorkspacePhase.RUNNING, WorkspacePhase.STARTING):
            log.warning("orphan is stopped, its volume stays", environment_id=environment_id)
            await self._fleet.stop(observed.ref)
        elif not missing.told:
            missing.told = True
            log.warning("volume belongs to no known environment and is left alone", environment_id=environment_id)
