"""One replica of the orchestrator, in memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from libs.common.clock import Clock
from libs.common.contracts.events import EnvironmentWish
from libs.common.security.sealing import Sealer
from libs.runtime.port import WorkspaceRuntime
from services.orchestrator.domain.model import Environment, Limits
from services.orchestrator.ports import EnvironmentStore, Placement
from services.orchestrator.service.reconcile import Reconciler, Work
from services.orchestrator.service.wishes import Wishes
from tests.unit.orchestrator.memory import START, FakeClock, MemoryStore, OneCluster, fleet_of

SEALER = Sealer("a-secret-key-for-tests", "environment-variables")


def a_reconciler(
    store: EnvironmentStore,
    runtime: WorkspaceRuntime,
    clock: Clock,
    *,
    limits: Limits | None = None,
    lease_s: float = 15.0,
    serving_since: datetime = START - timedelta(days=1),
    on_running: Callable[[], None] = lambda: None,
    placement: Placement | None = None,
) -> Reconciler:
    """A replica's; pauses are not stretched, so that tests can count on them."""
    work = Work(limits or Limits(), lease_s, 5.0, serving_since=serving_since, jitter=lambda: 1.0)
    placement = placement or OneCluster(runtime)
    return Reconciler(store, fleet_of(runtime), placement, SEALER.open, clock=clock, work=work, on_running=on_running)


class Desk:
    """Where wishes arrive: `wish` accepts, `environment` is what became of it."""

    def __init__(self, store: MemoryStore, clock: FakeClock) -> None:
        self.store = store
        self.poked: list[str] = []
        self._wishes = Wishes(store, self.poked.append, clock)

    async def wish(self, wish: EnvironmentWish) -> bool:
        return await self._wishes.accept(wish)

    def environment(self, environment_id: str = "env1") -> Environment:
        return self.store.records[environment_id].environment


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def desk(store: MemoryStore, clock: FakeClock) -> Desk:
    return Desk(store, clock)
