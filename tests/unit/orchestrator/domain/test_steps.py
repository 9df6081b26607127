"""What each step changes and says."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.environments import DesiredState
from libs.common.contracts.events import (
    RuntimeDelayed,
    RuntimeDeleted,
    RuntimeFailed,
    RuntimeLost,
    RuntimeProvisioning,
    RuntimeRunning,
)
from libs.runtime.port import ObservedWorkspace, WorkspacePhase
from services.orchestrator.domain import steps
from services.orchestrator.domain.model import Change, Environment, Limits, Progress, Said, Trouble
from tests.unit.orchestrator.domain.test_decision import GENERATION, REF, an_environment
from tests.unit.orchestrator.memory import START

LIMITS = Limits()
AWAY = Trouble("RuntimeUnavailable", "The cluster does not answer.")
PULLING = Trouble("ImagePullBackOff", "The image cannot be pulled.")
REFUSED = Trouble("ImageUnknown", "There is no image of that name.", final=True)
RUNNING, STOPPED, DELETED = DesiredState.RUNNING, DesiredState.STOPPED, DesiredState.DELETED


def kind_of(change: Change) -> object:
    return None if change.report is None else change.report.kind


class TestAnnounce:
    def test_begins_the_time_the_wish_may_take(self) -> None:
        change = steps.announce(an_environment(RUNNING, Said.NOTHING), START, LIMITS)
        assert kind_of(change) is RuntimeProvisioning
        assert change.environment.progress == Progress(GENERATION, 0, START + timedelta(seconds=300))
        assert not change.done
        # Should this replica die now, another one finds it as soon as the lease expires.
        assert change.look_again_at == START


class TestConfirm:
    def test_ends_the_work(self) -> None:
        begun = steps.announce(an_environment(RUNNING, Said.NOTHING), START, LIMITS).environment
        change = steps.confirm(begun, START, LIMITS)
        assert kind_of(change) is RuntimeRunning
        assert change.environment.said is Said.RUNNING
        assert change.environment.progress is None
        assert change.done
        assert change.look_again_at == START + timedelta(seconds=30)


class TestLose:
    def lose(self, environment: Environment, actual: ObservedWorkspace | None = None) -> Change:
        return steps.lose(environment, actual, START, LIMITS, serving_since=START - timedelta(days=1))

    def test_says_what_the_runtime_says(self) -> None:
        actual = ObservedWorkspace(REF, GENERATION, WorkspacePhase.FAILED, "OutOfMemory", "It used too much memory.")
        change = self.lose(an_environment(RUNNING, Said.RUNNING), actual)
        assert kind_of(change) is RuntimeLost
        assert change.report is not None
        assert (change.report.reason, change.report.message) == ("OutOfMemory", "It used too much memory.")

    def test_has_words_where_the_runtime_has_none(self) -> None:
        change = self.lose(an_environment(RUNNING, Said.RUNNING))
        assert change.report is not None
        assert change.report.reason == "WorkspaceGone"
        assert change.report.message

    def test_brings_back_at_once_the_first_time_and_more_slowly_then(self) -> None:
        first = self.lose(an_environment(RUNNING, Said.RUNNING))
        assert first.look_again_at == START
        assert first.environment.losses == (START,)
        earlier = tuple(START - timedelta(seconds=ago) for ago in (3, 2, 1))
        fourth = self.lose(an_environment(RUNNING, Said.RUNNING, losses=earlier))
        assert fourth.look_again_at == START + timedelta(seconds=2)

    def test_gives_the_repair_its_own_time(self) -> None:
        stale = Progress(GENERATION, 7, START - timedelta(seconds=1))
        change = self.lose(an_environment(RUNNING, Said.RUNNING, progress=stale))
        assert change.environment.progress == Progress(GENERATION, 0, START + timedelta(seconds=300))


class TestCrashLooped:
    def test_says_what_to_do_and_starts_counting_anew(self) -> None:
        looped = an_environment(RUNNING, Said.RUNNING, losses=(START,) * 5)
        change = steps.crash_looped(looped, START, LIMITS)
        assert change.report is not None
        assert change.report.kind is RuntimeFailed
        assert change.report.reason == "CrashLoop"
        assert "10 minutes" in (change.report.message or "")
        assert change.environment.losses == ()


class TestDeleted:
    def test_looks_once_more_and_then_never_again(self) -> None:
        change = steps.deleted(an_environment(DELETED, Said.NOTHING), START, LIMITS)
        assert kind_of(change) is RuntimeDeleted
        assert change.environment.is_buried
        assert change.look_again_at == START + timedelta(seconds=30)
        assert steps.rest(change.environment, START, LIMITS).look_again_at is None


class TestSetback:
    def setback(self, environment: Environment, trouble: Trouble = AWAY, at_s: float = 0.0) -> Change:
        now = START + timedelta(seconds=at_s)
        return steps.setback(environment, trouble, began=START, now=now, limits=LIMITS)

    def test_is_retried_with_growing_pauses(self) -> None:
        environment = an_environment(RUNNING, Said.PROVISIONING)
        pauses = []
        for _ in range(9):
            change = self.setback(environment)
            assert change.report is None
            assert change.done
            assert change.look_again_at is not None
            pauses.append((change.look_again_at - START).total_seconds())
            environment = change.environment
        assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]

    @pytest.mark.parametrize(("desired", "limit_s", "verb"), [(RUNNING, 300, "started"), (STOPPED, 60, "stopped")])
    def test_fails_once_its_time_is_over(self, desired: DesiredState, limit_s: int, verb: str) -> None:
        environment = self.setback(an_environment(desired, Said.NOTHING)).environment
        assert kind_of(self.setback(environment, at_s=limit_s - 1)) is RuntimeDelayed
        change = self.setback(environment, at_s=limit_s)
        assert change.report is not None
        assert change.report.kind is RuntimeFailed
        assert change.report.reason == "RuntimeUnavailable"
        expected = f"The workspace could not be {verb} within {limit_s} s: The cluster does not answer."
        assert change.report.message == expected

    def test_the_last_try_is_not_later_than_the_deadline(self) -> None:
        environment = an_environment(
            STOPPED, Said.NOTHING, progress=Progress(GENERATION, 9, START + timedelta(seconds=60))
        )
        assert self.setback(environment, at_s=50).look_again_at == START + timedelta(seconds=60)

    def test_what_is_refused_fails_at_once(self) -> None:
        change = self.setback(an_environment(RUNNING, Said.PROVISIONING), REFUSED)
        assert change.report is not None
        assert (change.report.kind, change.report.reason) == (RuntimeFailed, "ImageUnknown")
        assert change.environment.said is Said.FAILED

    @given(days=st.integers(0, 400), trouble=st.sampled_from([AWAY, REFUSED]))
    def test_a_deletion_never_gives_up(self, days: int, trouble: Trouble) -> None:
        begun = self.setback(an_environment(DELETED, Said.NOTHING)).environment
        change = self.setback(begun, trouble, at_s=days * 86_400)
        assert kind_of(change) in {None, RuntimeDelayed}
        assert change.look_again_at is not None

    def test_a_deletion_is_retried_more_slowly_past_its_deadline(self) -> None:
        progress = Progress(GENERATION, 20, START + timedelta(seconds=300))
        environment = an_environment(DELETED, Said.NOTHING, progress=progress)
        assert self.setback(environment, at_s=10).look_again_at == START + timedelta(seconds=40)
        assert self.setback(environment, at_s=300).look_again_at == START + timedelta(seconds=600)

    @pytest.mark.parametrize(
        ("desired", "said"),
        [(RUNNING, Said.RUNNING), (RUNNING, Said.FAILED), (STOPPED, Said.STOPPED), (STOPPED, Said.FAILED)],
    )
    def test_what_was_answered_does_not_fail_because_the_runtime_is_away(
        self, desired: DesiredState, said: Said
    ) -> None:
        begun = self.setback(an_environment(desired, said)).environment
        # Only who takes it to be running needs to know that nobody can see it.
        expected = RuntimeDelayed if said is Said.RUNNING else None
        assert kind_of(self.setback(begun, at_s=100_000)) is expected

    def test_a_delay_is_told_once_for_each_reason(self) -> None:
        environment = an_environment(RUNNING, Said.PROVISIONING)
        told = []
        for at_s, trouble in [(0, AWAY), (3, AWAY), (6, AWAY), (9, AWAY), (12, PULLING), (15, PULLING), (18, AWAY)]:
            change = self.setback(environment, trouble, at_s=at_s)
            environment = change.environment
            told.append(change.report.reason if change.report else None)
        assert told == [None, None, AWAY.reason, None, PULLING.reason, None, AWAY.reason]
        assert steps.confirm(environment, START, LIMITS).environment.delayed_by is None


class TestAttempt:
    def test_may_take_what_is_left(self) -> None:
        progress = Progress(GENERATION, 1, START + timedelta(seconds=100))
        assert steps.attempt_s(an_environment(RUNNING, Said.PROVISIONING, progress=progress), START, LIMITS) == 100

    def test_is_given_a_chance_after_an_outage(self) -> None:
        progress = Progress(GENERATION, 1, START - timedelta(days=1))
        assert steps.attempt_s(an_environment(RUNNING, Said.PROVISIONING, progress=progress), START, LIMITS) == 30


class TestBackoff:
    @given(attempts=st.integers(-1, 10_000))
    def test_is_bounded(self, attempts: int) -> None:
        assert 0.5 <= steps.backoff_s(attempts) <= 30
