"""Whatever happens to the events on their way, the newest wish is what comes true."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.environments import DesiredState
from libs.common.contracts.events import (
    EnvironmentCreated,
    EnvironmentDeleteRequested,
    EnvironmentRestartRequested,
    EnvironmentStartRequested,
    EnvironmentStopRequested,
    EnvironmentUpdated,
    EnvironmentWish,
    RuntimeDeleted,
    RuntimeLost,
    RuntimeProvisioning,
    RuntimeRunning,
    RuntimeStopped,
)
from services.orchestrator.domain.model import Limits
from tests.fakes.runtime import OverloadedRuntime
from tests.unit.orchestrator.memory import FakeClock, MemoryStore, wish
from tests.unit.orchestrator.service.conftest import Desk, a_reconciler

_LATER = (
    EnvironmentStartRequested,
    EnvironmentStopRequested,
    EnvironmentRestartRequested,
    EnvironmentUpdated,
)
_ANSWER = {
    DesiredState.RUNNING: RuntimeRunning,
    DesiredState.STOPPED: RuntimeStopped,
    DesiredState.DELETED: RuntimeDeleted,
}
# The convergence is what matters here; failing for lack of time is tested elsewhere.
_PATIENT = Limits(provision_s=1e9, stop_s=1e9, losses=1000)


@st.composite
def histories(draw: st.DrawFn) -> list[EnvironmentWish]:
    """What envs says of one environment, in the order in which it was said."""
    kinds = [EnvironmentCreated, *draw(st.lists(st.sampled_from(_LATER), max_size=6))]
    if draw(st.booleans()):
        kinds.append(EnvironmentDeleteRequested)
    wishes: list[EnvironmentWish] = []
    generation = 0
    desired = DesiredState.RUNNING
    for version, kind in enumerate(kinds, start=1):
        if kind is not EnvironmentUpdated:
            generation += 1
            desired = wish(kind).desired
        wishes.append(wish(kind, generation=generation, version=version, desired=desired, name=f"v{version}"))
    return wishes


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[EnvironmentWish], list[EnvironmentWish | str]]:
    """A history, and what arrives of it when: shuffled, repeated, what was dropped comes last; work in between."""
    history = draw(histories())
    early = draw(st.lists(st.sampled_from(history), max_size=12))
    dropped = [one for one in history if one not in early]
    arrivals: list[EnvironmentWish | str] = [*early, *draw(st.permutations(dropped))]
    for _ in range(draw(st.integers(0, 8))):
        incident = draw(st.sampled_from(["work", "crash", "vanish"]))
        arrivals.insert(draw(st.integers(0, len(arrivals))), incident)
    return history, arrivals


class TestConvergence:
    @settings(deadline=None, max_examples=200)
    @given(delivery=deliveries(), failures=st.integers(0, 4))
    async def test_the_newest_wish_comes_true(
        self, delivery: tuple[list[EnvironmentWish], list[EnvironmentWish | str]], failures: int
    ) -> None:
        history, arrivals = delivery
        store, clock, runtime = MemoryStore(), FakeClock(), OverloadedRuntime(failures)
        desk = Desk(store, clock)
        reconciler = a_reconciler(store, runtime, clock, limits=_PATIENT)
        for arrival in arrivals:
            clock.forward(1)
            if isinstance(arrival, EnvironmentWish):
                await desk.wish(arrival)
            elif arrival == "work":
                await reconciler.reconcile("env1", only_if_due=True)
            elif runtime.runs("env1"):
                runtime.crash("env1") if arrival == "crash" else runtime.vanish("env1")
        for _ in range(12):
            clock.forward(31)
            await reconciler.reconcile("env1", only_if_due=True)

        newest = history[-1]
        environment = desk.environment()
        assert (environment.version, environment.generation) == (newest.version, newest.generation)
        assert (environment.desired, environment.name) == (newest.desired, newest.name)
        assert environment.is_settled
        assert runtime.runs("env1") == (newest.desired is DesiredState.RUNNING)
        assert ("env1" in runtime.volumes) <= (newest.desired is not DesiredState.DELETED)
        self.check_story(store, newest)

    def check_story(self, store: MemoryStore, newest: EnvironmentWish) -> None:
        """Generations never go back, each is announced once, and the last word is the answer to the newest wish."""
        generations = [about.generation for about, _ in store.reports]
        assert generations == sorted(generations)
        announced = [about.generation for about, report in store.reports if report.kind is RuntimeProvisioning]
        assert len(announced) == len(set(announced))
        about, report = store.reports[-1]
        assert (about.generation, report.kind) == (newest.generation, _ANSWER[newest.desired])
        for (_, before), (_, after) in zip(store.reports, store.reports[1:], strict=False):
            assert before.kind is RuntimeRunning or after.kind is not RuntimeLost
