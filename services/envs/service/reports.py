"""What the orchestrator and the terminal say about environments."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import structlog

from libs.common.clock import Clock, utc_now
from libs.common.contracts.environments import EnvironmentStatus
from libs.common.contracts.events import (
    RuntimeDelayed,
    RuntimeDeleted,
    RuntimeFailed,
    RuntimeReport,
    RuntimeRunning,
    RuntimeStopped,
)
from libs.common.errors import TemporaryError
from services.envs.domain import observe
from services.envs.entities import Change, Environment, Observation, Report
from services.envs.errors import EditConflictError
from services.envs.ports import EnvironmentStore
from services.envs.service.owners import OwnerService
from services.envs.service.writes import change_environment

_REPORTS: dict[type[RuntimeReport], Report] = {
    RuntimeRunning: Report.RUNNING,
    RuntimeStopped: Report.STOPPED,
    RuntimeFailed: Report.FAILED,
    RuntimeDelayed: Report.DELAYED,
    RuntimeDeleted: Report.DELETED,
}

log = structlog.get_logger(__name__)


class ReportService:
    """Applies reports; right for any order, any number of times."""

    def __init__(
        self,
        store: EnvironmentStore,
        clock: Clock = utc_now,
        owners: OwnerService | None = None,
        on_failed: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        """`owners` looks at what a report means for the environment's owner; None in a replay, which has no effect.

        `on_failed` hears the reason each time that an environment comes to `error`.
        """
        self._on_failed = on_failed
        self._store = store
        self._clock = clock
        self._owners = owners

    async def apply(self, report: RuntimeReport, sequence: int) -> None:
        """Take over what the runtime has. `sequence`: where the report stands in the stream.

        Reports that do not concern the status, and those about an environment nobody knows (a replay, a tombstone that
        has expired), are done at once. Raises TemporaryError when other writers were always faster.
        """
        kind = _REPORTS.get(type(report))
        if kind is None:
            return
        seen = Observation(kind, report.generation, sequence, report.reason, report.message, report.cluster)

        async def load() -> Environment:
            found = await self._store.get(report.environment_id)
            if found is None:
                raise _UnknownEnvironmentError
            return found

        change: Change | None = None

        def decide(current: Environment) -> Change:
            nonlocal change
            change = observe(current, seen, self._clock())
            return change

        try:
            changed = await change_environment(self._store, load, decide)
        except _UnknownEnvironmentError:
            log.info("report about an unknown environment", environment_id=report.environment_id, report=kind)
        except EditConflictError as error:
            raise TemporaryError("other writers were always faster", delay_s=0.5) from error
        else:
            if change is not None and change.comes_to(EnvironmentStatus.ERROR):
                self._on_failed(seen.reason)
            await self._look_at_owner(kind, changed)

    async def _look_at_owner(self, kind: Report, environment: Environment) -> None:
        """Also when the report was heard before: what followed from it may not have been done."""
        if self._owners is None:
            return
        if kind is Report.RUNNING:
            await self._owners.workspace_runs(environment)
        elif kind is Report.DELETED:
            await self._owners.workspace_gone(environment)

    async def opened_terminal(self, environment_id: str, at: datetime) -> None:
        """Somebody works in it."""
        await self._store.touch(environment_id, at)


class _UnknownEnvironmentError(Exception):
    """Ends the loop of `change_environment`."""
