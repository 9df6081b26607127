"""What the orchestrator counts of its own work and of its clusters."""

from __future__ import annotations

import pytest

from libs.common.metrics.registry import Metrics
from services.orchestrator.metrics import TimedReconciler
from tests.fakes.runtime import FakeRuntime, RefusingRuntime
from tests.unit.orchestrator.memory import FakeClock, MemoryStore, wish
from tests.unit.orchestrator.service.conftest import Desk, a_reconciler


def _count(metrics: Metrics, outcome: str) -> float | None:
    return metrics.registry.get_sample_value("devpocket_reconcile_duration_seconds_count", {"outcome": outcome})


async def test_work_is_timed_by_how_it_ends(store: MemoryStore, desk: Desk, clock: FakeClock) -> None:
    metrics = Metrics("orchestrator")
    timed = TimedReconciler(a_reconciler(store, FakeRuntime(), clock), metrics)
    assert not (await timed.reconcile("nobody")).worked
    await desk.wish(wish())
    assert (await timed.reconcile("env1")).worked
    assert (_count(metrics, "skipped"), _count(metrics, "done")) == (1, 1)
    assert _count(metrics, "setback") is None


async def test_a_step_that_fails_is_counted_by_its_reason(store: MemoryStore, desk: Desk, clock: FakeClock) -> None:
    metrics = Metrics("orchestrator")
    timed = TimedReconciler(a_reconciler(store, RefusingRuntime(), clock), metrics)
    await desk.wish(wish())
    result = await timed.reconcile("env1")
    assert _count(metrics, "setback") == 1
    (reason,) = result.setbacks
    assert metrics.registry.get_sample_value("devpocket_reconcile_setbacks_total", {"reason": reason}) == 1


async def test_a_database_that_is_away_is_a_failure(
    store: MemoryStore, desk: Desk, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics("orchestrator")
    timed = TimedReconciler(a_reconciler(store, FakeRuntime(), clock), metrics)

    async def away(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(store, "acquire", away)
    with pytest.raises(ConnectionError):
        await timed.reconcile("env1")
    assert _count(metrics, "failed") == 1
