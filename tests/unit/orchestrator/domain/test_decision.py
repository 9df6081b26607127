"""The table, row by row, and what holds for all of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.environments import DesiredState
from libs.runtime.port import ObservedWorkspace, WorkspacePhase, WorkspaceRef
from services.orchestrator.domain.decision import Action, Have, decide, have
from services.orchestrator.domain.model import Environment, Limits, Progress, Reported, Said
from tests.unit.orchestrator.memory import START, template

LIMITS = Limits()
GENERATION = 5
REF = WorkspaceRef("env1", "user1")

RUNNING, STOPPED, DELETED = DesiredState.RUNNING, DesiredState.STOPPED, DesiredState.DELETED


def an_environment(desired: DesiredState, said: Said, **changes: object) -> Environment:
    environment = Environment(
        id="env1",
        user_id="user1",
        name="box",
        region=None,
        desired=desired,
        generation=GENERATION,
        version=9,
        spec=template(),
        reported=Reported(said, GENERATION, at=START),
    )
    return replace(environment, **changes)  # type: ignore[arg-type]


def a_workspace(phase: WorkspacePhase, generation: int = GENERATION) -> ObservedWorkspace:
    return ObservedWorkspace(REF, generation, phase)


WORKSPACES: dict[Have, ObservedWorkspace | None] = {
    Have.NONE: None,
    Have.DOWN: a_workspace(WorkspacePhase.FAILED),
    Have.OLD: a_workspace(WorkspacePhase.RUNNING, GENERATION - 1),
    Have.STARTING: a_workspace(WorkspacePhase.STARTING),
    Have.READY: a_workspace(WorkspacePhase.RUNNING),
}
ALIVE = (Have.OLD, Have.STARTING, Have.READY)


def decided(
    environment: Environment, there: Have, *, now: datetime = START, since: datetime = START - timedelta(days=1)
) -> Action:
    return decide(environment, WORKSPACES[there], now=now, limits=LIMITS, serving_since=since)


class TestHave:
    @pytest.mark.parametrize("there", list(Have))
    def test_names_what_is_there(self, there: Have) -> None:
        assert have(WORKSPACES[there], GENERATION) is there

    @pytest.mark.parametrize("generation", [1, GENERATION, GENERATION + 1])
    def test_what_is_down_has_no_generation(self, generation: int) -> None:
        assert have(a_workspace(WorkspacePhase.STOPPED, generation), GENERATION) is Have.DOWN

    def test_a_newer_one_is_not_replaced_by_an_older_wish(self) -> None:
        assert have(a_workspace(WorkspacePhase.RUNNING, GENERATION + 1), GENERATION) is Have.READY


class TestDecide:
    @pytest.mark.parametrize("there", list(Have))
    @pytest.mark.parametrize(
        ("desired", "said", "down", "old_or_starting", "ready"),
        [
            (RUNNING, Said.NOTHING, Action.ANNOUNCE, Action.ANNOUNCE, Action.CONFIRM),
            (RUNNING, Said.PROVISIONING, Action.ENSURE, Action.ENSURE, Action.CONFIRM),
            (RUNNING, Said.LOST, Action.ENSURE, Action.ENSURE, Action.CONFIRM),
            (RUNNING, Said.RUNNING, Action.LOSE, Action.LOSE, Action.REST),
            (RUNNING, Said.FAILED, Action.REST, Action.HALT, Action.HALT),
            (STOPPED, Said.NOTHING, Action.STOP, Action.STOP, Action.STOP),
            (STOPPED, Said.STOPPED, Action.REST, Action.HALT, Action.HALT),
            (STOPPED, Said.FAILED, Action.REST, Action.HALT, Action.HALT),
            (DELETED, Said.NOTHING, Action.DELETE, Action.DELETE, Action.DELETE),
            (DELETED, Said.FAILED, Action.DELETE, Action.DELETE, Action.DELETE),
        ],
    )
    def test_the_table(
        self,
        desired: DesiredState,
        said: Said,
        there: Have,
        down: Action,
        old_or_starting: Action,
        ready: Action,
    ) -> None:
        expected = {Have.NONE: down, Have.DOWN: down, Have.READY: ready}.get(there, old_or_starting)
        assert decided(an_environment(desired, said), there) is expected

    @pytest.mark.parametrize("there", list(Have))
    def test_a_tombstone_tolerates_nothing(self, there: Have) -> None:
        expected = Action.REST if there is Have.NONE else Action.PURGE
        assert decided(an_environment(DELETED, Said.DELETED), there) is expected

    @pytest.mark.parametrize("desired", list(DesiredState))
    @pytest.mark.parametrize("said", list(Said))
    @pytest.mark.parametrize("there", list(Have))
    def test_a_report_about_an_older_wish_counts_for_nothing(
        self, desired: DesiredState, said: Said, there: Have
    ) -> None:
        older = an_environment(desired, said, reported=Reported(said, GENERATION - 1, at=START))
        assert decided(older, there) is decided(an_environment(desired, Said.NOTHING), there)

    @pytest.mark.parametrize("said", list(Said))
    @pytest.mark.parametrize("there", list(Have))
    def test_a_stopped_wish_starts_nothing_and_deletes_nothing(self, said: Said, there: Have) -> None:
        assert decided(an_environment(STOPPED, said), there) in {Action.REST, Action.STOP, Action.HALT}

    @pytest.mark.parametrize("desired", [RUNNING, STOPPED])
    @pytest.mark.parametrize("said", list(Said))
    @pytest.mark.parametrize("there", list(Have))
    def test_a_volume_goes_only_with_its_environment(self, desired: DesiredState, said: Said, there: Have) -> None:
        assert decided(an_environment(desired, said), there) not in {Action.DELETE, Action.PURGE}

    @pytest.mark.parametrize("desired", list(DesiredState))
    @pytest.mark.parametrize("there", ALIVE)
    def test_after_a_failure_nothing_is_left_running(self, desired: DesiredState, there: Have) -> None:
        assert decided(an_environment(desired, Said.FAILED), there) in {Action.HALT, Action.DELETE}


class TestWaiting:
    progress = Progress(GENERATION, 1, START + timedelta(seconds=300), START + timedelta(seconds=2))

    @pytest.mark.parametrize(
        ("desired", "said", "there"),
        [
            (RUNNING, Said.PROVISIONING, Have.NONE),
            (STOPPED, Said.NOTHING, Have.READY),
            (STOPPED, Said.STOPPED, Have.READY),
            (DELETED, Said.NOTHING, Have.READY),
            (DELETED, Said.DELETED, Have.DOWN),
        ],
    )
    def test_an_effort_waits_for_its_turn(self, desired: DesiredState, said: Said, there: Have) -> None:
        environment = an_environment(desired, said, progress=self.progress)
        assert decided(environment, there, now=START + timedelta(seconds=1)) is Action.WAIT
        assert decided(environment, there, now=START + timedelta(seconds=2)) is not Action.WAIT

    def test_what_needs_no_effort_does_not_wait(self) -> None:
        environment = an_environment(RUNNING, Said.PROVISIONING, progress=self.progress)
        assert decided(environment, Have.READY) is Action.CONFIRM

    def test_a_newer_wish_does_not_wait_for_an_older_ones_turn(self) -> None:
        older = replace(self.progress, generation=GENERATION - 1)
        assert decided(an_environment(STOPPED, Said.NOTHING, progress=older), Have.READY) is Action.STOP


class TestCrashLoop:
    def environment(self, *losses_s_ago: float) -> Environment:
        losses = tuple(START - timedelta(seconds=ago) for ago in losses_s_ago)
        return an_environment(RUNNING, Said.RUNNING, losses=losses)

    def test_five_losses_are_repaired_and_the_sixth_is_not(self) -> None:
        assert decided(self.environment(5, 4, 3, 2), Have.NONE) is Action.LOSE
        assert decided(self.environment(5, 4, 3, 2, 1), Have.NONE) is Action.GIVE_UP

    def test_losses_outside_the_window_are_forgotten(self) -> None:
        assert decided(self.environment(601, 4, 3, 2, 1), Have.NONE) is Action.LOSE
        assert decided(self.environment(600, 4, 3, 2, 1), Have.NONE) is Action.GIVE_UP

    def test_what_came_up_before_this_replica_does_not_count(self) -> None:
        restarted = START + timedelta(seconds=1)
        assert decided(self.environment(5, 4, 3, 2, 1), Have.NONE, since=restarted) is Action.LOSE


environments = st.builds(
    an_environment,
    desired=st.sampled_from(DesiredState),
    said=st.sampled_from(Said),
    reported=st.builds(Reported, st.sampled_from(Said), st.integers(GENERATION - 1, GENERATION), at=st.just(START)),
    progress=st.none()
    | st.builds(
        Progress,
        st.integers(GENERATION - 1, GENERATION),
        st.integers(0, 50),
        st.datetimes().map(lambda at: at.replace(tzinfo=START.tzinfo)),
        st.none() | st.datetimes().map(lambda at: at.replace(tzinfo=START.tzinfo)),
    ),
)


class TestAnything:
    @given(
        environment=environments,
        phase=st.none() | st.sampled_from(WorkspacePhase),
        generation=st.integers(GENERATION - 2, GENERATION + 2),
    )
    def test_there_is_always_a_step_and_rest_means_that_all_is_well(
        self, environment: Environment, phase: WorkspacePhase | None, generation: int
    ) -> None:
        actual = None if phase is None else a_workspace(phase, generation)
        action = decide(environment, actual, now=START, limits=LIMITS, serving_since=START)
        there = have(actual, GENERATION)
        if action is Action.REST:
            assert environment.is_settled
            assert (there is Have.READY) == (environment.desired is RUNNING and environment.said is Said.RUNNING)
        if action is Action.CONFIRM:
            assert environment.desired is RUNNING
            assert there is Have.READY
