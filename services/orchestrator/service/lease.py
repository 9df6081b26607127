"""Work under a lease: it is renewed while the work goes on, and the work ends when it is lost or no longer wanted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from libs.common.clock import Clock
from libs.common.ids import new_id
from services.orchestrator.domain.model import Environment
from services.orchestrator.ports import EnvironmentStore

_RENEWALS_PER_LEASE = 3
_AFTER_ERROR_S = 0.5

log = structlog.get_logger(__name__)


class LeaseLostError(Exception):
    """Another replica may be working on the environment by now."""


class SupersededError(Exception):
    """The wish has changed while it was worked on."""


@dataclass(slots=True)
class Lease:
    """One taking of one environment's lease. `nudge` makes it look at once whether the wish has changed."""

    store: EnvironmentStore
    clock: Clock
    seconds: float
    holder: str = field(default_factory=new_id)
    nudge: asyncio.Event = field(default_factory=asyncio.Event)

    async def acquire(self, environment_id: str, *, only_if_due: bool) -> Environment | None:
        """The environment, or None when there is nothing to do here."""
        now = self.clock()
        until = now + timedelta(seconds=self.seconds)
        return await self.store.acquire(environment_id, self.holder, now, until, only_if_due=only_if_due)

    @contextlib.asynccontextmanager
    async def kept(self, environment: Environment) -> AsyncIterator[None]:
        """Renew while the block runs. Cancels the block and raises LeaseLostError or SupersededError."""
        try:
            async with asyncio.TaskGroup() as group:
                keeper = group.create_task(self._keep(environment))
                try:
                    yield
                finally:
                    keeper.cancel()
        except BaseExceptionGroup as errors:
            raise _most_telling(errors) from errors

    async def _keep(self, environment: Environment) -> None:
        renewed_at = self.clock()
        while True:
            # Not `wait_for`: in Python 3.11 it drops a cancellation that comes together with the nudge.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.seconds / _RENEWALS_PER_LEASE):
                    await self.nudge.wait()
            self.nudge.clear()
            now = self.clock()
            try:
                wish = await self.store.renew(environment.id, self.holder, now + timedelta(seconds=self.seconds))
            except Exception as error:
                if (self.clock() - renewed_at).total_seconds() >= self.seconds:
                    raise LeaseLostError("the lease could not be renewed in time") from error
                log.warning("lease not renewed yet", environment_id=environment.id, error=repr(error))
                await asyncio.sleep(_AFTER_ERROR_S)
                self.nudge.set()
                continue
            if wish is None:
                raise LeaseLostError("another replica has taken the lease")
            if wish != (environment.desired, environment.generation):
                raise SupersededError
            renewed_at = now


def _most_telling(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of several errors at once, the one that ends the work for good."""
    for kind in (LeaseLostError, SupersededError):
        found = errors.subgroup(kind)
        if found is not None:
            return found.exceptions[0]
    return errors.exceptions[0]
