"""The transition table, exhaustively, and what no order of events may break."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.environments import DesiredState, Resources
from libs.common.contracts.environments import EnvironmentStatus as Status
from libs.common.contracts.events import (
    EnvironmentCreated,
    EnvironmentDeleteRequested,
    EnvironmentRestartRequested,
    EnvironmentStartRequested,
    EnvironmentStatusChanged,
    EnvironmentStopRequested,
    EnvironmentUpdated,
)
from services.envs.domain import created, decide, edit, failure_sentence, observe
from services.envs.entities import Command, Edit, Environment, Observation, Report
from services.envs.errors import TransitionForbiddenError
from tests.unit.envs.makers import NOW, an_environment

LATER = NOW + timedelta(minutes=1)

# Written down again, by hand, from DESIGN section 4: a copy of the code would prove nothing.
SAME = "same"
NO = "409"
COMMANDS: dict[Status, dict[Command, str]] = {
    Status.CREATING: {Command.START: NO, Command.STOP: "stopping", Command.RESTART: NO},
    Status.RUNNING: {Command.START: SAME, Command.STOP: "stopping", Command.RESTART: "restarting"},
    Status.STOPPING: {Command.START: NO, Command.STOP: SAME, Command.RESTART: NO},
    Status.STOPPED: {Command.START: "starting", Command.STOP: SAME, Command.RESTART: NO},
    Status.STARTING: {Command.START: SAME, Command.STOP: "stopping", Command.RESTART: NO},
    Status.RESTARTING: {Command.START: NO, Command.STOP: "stopping", Command.RESTART: SAME},
    Status.TERMINATING: {Command.START: NO, Command.STOP: NO, Command.RESTART: NO},
    Status.TERMINATED: {Command.START: NO, Command.STOP: NO, Command.RESTART: NO},
    Status.ERROR: {Command.START: "starting", Command.STOP: "stopping", Command.RESTART: "restarting"},
}
REPORTS: dict[Status, dict[Report, str]] = {
    Status.CREATING: {Report.RUNNING: "running", Report.FAILED: "error"},
    Status.RUNNING: {Report.FAILED: "error"},
    Status.STOPPING: {Report.STOPPED: "stopped", Report.FAILED: "error"},
    Status.STOPPED: {},
    Status.STARTING: {Report.RUNNING: "running", Report.FAILED: "error"},
    Status.RESTARTING: {Report.RUNNING: "running", Report.FAILED: "error"},
    Status.TERMINATING: {Report.DELETED: "terminated"},
    Status.TERMINATED: {},
    Status.ERROR: {Report.RUNNING: "running"},
}


def seen(report: Report, generation: int = 3, sequence: int = 50, reason: str | None = None) -> Observation:
    return Observation(report, generation, sequence, reason=reason)


class TestCommands:
    @pytest.mark.parametrize(("status", "command"), list(product(Status, Command)))
    def test_every_cell_of_the_table(self, status: Status, command: Command) -> None:
        environment = an_environment(status)
        gone = {Status.TERMINATING, Status.TERMINATED}
        expected = COMMANDS[status].get(command, SAME if status in gone else "terminating")
        if expected == NO:
            with pytest.raises(TransitionForbiddenError, match=f"The environment is {status} and cannot be"):
                decide(environment, command, LATER)
            return
        change = decide(environment, command, LATER)
        if expected == SAME:
            assert change.is_empty
            assert change.events == ()
            return
        assert change.after.status == expected
        assert (change.after.generation, change.after.version) == (4, 8)
        assert change.after.updated_at == LATER
        wish, status_changed = change.events
        assert isinstance(status_changed, EnvironmentStatusChanged)
        assert (status_changed.previous, status_changed.status) == (status, change.after.status)
        assert (status_changed.generation, status_changed.version) == (4, 8)
        assert (
            type(wish)
            is {
                Command.START: EnvironmentStartRequested,
                Command.STOP: EnvironmentStopRequested,
                Command.RESTART: EnvironmentRestartRequested,
                Command.DELETE: EnvironmentDeleteRequested,
            }[command]
        )

    @pytest.mark.parametrize(
        ("command", "desired"),
        [(Command.STOP, DesiredState.STOPPED), (Command.RESTART, DesiredState.RUNNING),
         (Command.DELETE, DesiredState.DELETED)],
    )  # fmt: skip
    def test_a_wish_carries_the_whole_desired_state(self, command: Command, desired: DesiredState) -> None:
        environment = an_environment(Status.RUNNING, startup_command="make", region="eu")
        wish = decide(environment, command, LATER).events[0]
        assert isinstance(wish, EnvironmentStopRequested | EnvironmentRestartRequested | EnvironmentDeleteRequested)
        assert (wish.desired, wish.generation, wish.version, wish.region) == (desired, 4, 8, "eu")
        assert wish.spec.image == environment.image
        assert wish.spec.resources == environment.resources
        assert wish.spec.variables_sealed == environment.variables_sealed
        assert wish.spec.startup_command == "make"

    def test_a_command_clears_the_reason(self) -> None:
        assert decide(an_environment(Status.ERROR, status_reason="x"), Command.START, LATER).after.status_reason is None

    def test_the_first_event_is_the_creation(self) -> None:
        event = created(an_environment(generation=1, version=1))
        assert isinstance(event, EnvironmentCreated)
        assert event.desired is DesiredState.RUNNING


class TestReports:
    @pytest.mark.parametrize(("status", "report"), list(product(Status, Report)))
    def test_every_cell_of_the_table(self, status: Status, report: Report) -> None:
        environment = an_environment(status)
        change = observe(environment, seen(report), LATER)
        expected = REPORTS[status].get(report)
        held_up = {*Status} - {Status.STOPPED, Status.ERROR, Status.TERMINATED}
        reasons_only = (report is Report.FAILED and status in {Status.ERROR, Status.TERMINATING}) or (
            report is Report.DELAYED and status in held_up
        )
        assert change.after.status == (expected or status)
        assert len(change.events) == (1 if expected or reasons_only else 0)
        if status is not Status.TERMINATED:
            heard = change.after.delay_sequence if report is Report.DELAYED else change.after.report_sequence
            assert heard == 50
            assert change.after.version == 8

    @pytest.mark.parametrize(("status", "report"), list(product(Status, Report)))
    @pytest.mark.parametrize("generation", [2, 4])
    def test_another_generation_changes_nothing(self, status: Status, report: Report, generation: int) -> None:
        environment = an_environment(status, installation_completed=True)
        assert observe(environment, seen(report, generation), LATER).is_empty

    @pytest.mark.parametrize("sequence", [49, 50])
    @pytest.mark.parametrize("report", [Report.FAILED, Report.DELAYED])
    def test_older_or_repeated_changes_nothing(self, report: Report, sequence: int) -> None:
        environment = an_environment(Status.RUNNING, report_sequence=50, delay_sequence=50)
        assert observe(environment, seen(report, sequence=sequence), LATER).is_empty

    @pytest.mark.parametrize("status", list(Status))
    @pytest.mark.parametrize(("generation", "sequence"), [(2, 50), (3, 49)])
    def test_a_late_success_completes_the_installation_and_nothing_else(
        self, status: Status, generation: int, sequence: int
    ) -> None:
        environment = an_environment(status, report_sequence=50)
        change = observe(environment, seen(Report.RUNNING, generation, sequence), LATER)
        assert change.after == replace(environment, installation_completed=True, version=8)
        assert change.events == ()
        assert observe(change.after, seen(Report.RUNNING, generation, sequence), LATER).is_empty

    def test_a_late_success_of_a_stop_counts_and_one_of_another_wish_does_not(self) -> None:
        failed_stop = an_environment(Status.ERROR, desired=DesiredState.STOPPED)
        assert observe(failed_stop, seen(Report.STOPPED), LATER).after.status is Status.STOPPED
        assert observe(failed_stop, seen(Report.RUNNING), LATER).after.status is Status.ERROR

    def test_running_completes_the_installation_and_clears_the_reason(self) -> None:
        after = observe(an_environment(Status.ERROR, status_reason="x"), seen(Report.RUNNING), LATER).after
        assert (after.installation_completed, after.status_reason) == (True, None)

    def test_a_delay_is_told_once_and_is_over_when_it_runs(self) -> None:
        delayed = Observation(Report.DELAYED, 3, 51, "ClusterUnreachable", "The cluster does not answer.", "eu")
        told = observe(an_environment(Status.RUNNING, installation_completed=True), delayed, LATER)
        assert told.after.status is Status.RUNNING
        assert told.after.status_reason == "The cluster does not answer (ClusterUnreachable)"
        [event] = told.events
        assert isinstance(event, EnvironmentStatusChanged)
        assert (event.previous, event.status, event.cluster) == (Status.RUNNING, Status.RUNNING, "eu")
        assert observe(told.after, replace(delayed, sequence=52), LATER).events == ()
        over = observe(told.after, seen(Report.RUNNING, sequence=53), LATER)
        assert over.after.status_reason is None
        assert len(over.events) == 1
        assert observe(over.after, seen(Report.RUNNING, sequence=54), LATER).events == ()

    @pytest.mark.parametrize(
        ("status", "report", "end"),
        [
            (Status.CREATING, Report.RUNNING, Status.RUNNING),
            (Status.RESTARTING, Report.RUNNING, Status.RUNNING),
            (Status.STOPPING, Report.STOPPED, Status.STOPPED),
            (Status.TERMINATING, Report.DELETED, Status.TERMINATED),
        ],
    )
    def test_a_delay_ends_with_what_it_delayed(self, status: Status, report: Report, end: Status) -> None:
        delayed = observe(an_environment(status), seen(Report.DELAYED, sequence=1, reason="NoRoom"), LATER).after
        assert (delayed.status, delayed.status_reason) == (status, "No room")
        after = observe(delayed, seen(report, sequence=2), LATER).after
        assert (after.status, after.status_reason) == (end, None)

    @pytest.mark.parametrize("status", [Status.STOPPED, Status.ERROR])
    def test_a_delay_is_nothing_to_what_waits_for_nothing(self, status: Status) -> None:
        environment = an_environment(status, status_reason="x" if status is Status.ERROR else None)
        change = observe(environment, seen(Report.DELAYED, reason="NoRoom"), LATER)
        assert (change.after.status, change.after.status_reason) == (status, environment.status_reason)
        assert change.events == ()

    def test_a_delay_that_overtook_the_report_before_it_hides_only_its_reason(self) -> None:
        delayed = observe(an_environment(Status.STARTING), seen(Report.DELAYED, sequence=9, reason="Away"), LATER).after
        change = observe(delayed, seen(Report.RUNNING, sequence=8), LATER)
        assert (change.after.status, change.after.status_reason) == (Status.RUNNING, "Away")
        assert len(change.events) == 1

    def test_a_delay_of_an_earlier_time_is_not_shown(self) -> None:
        running = observe(an_environment(Status.STARTING), seen(Report.RUNNING, sequence=9), LATER).after
        change = observe(running, seen(Report.DELAYED, sequence=8, reason="NoRoom"), LATER)
        assert (change.after.status, change.after.status_reason) == (Status.RUNNING, None)
        assert change.events == ()

    @pytest.mark.parametrize("command", list(Command))
    def test_a_new_wish_forgets_the_delay_of_the_one_before_and_keeps_the_cluster(self, command: Command) -> None:
        held_up = an_environment(Status.ERROR, delay_sequence=9, delay_reason="x", status_reason="x", cluster="eu")
        change = decide(held_up, command, LATER)
        assert (change.after.delay_sequence, change.after.delay_reason, change.after.status_reason) == (0, None, None)
        told = change.events[1]
        assert isinstance(told, EnvironmentStatusChanged)
        assert (change.after.cluster, told.cluster) == ("eu", "eu")
        assert observe(change.after, seen(Report.DELAYED, generation=3, sequence=10), LATER).is_empty

    def test_a_stale_report_does_not_move_it_to_another_cluster(self) -> None:
        environment = an_environment(Status.RUNNING, report_sequence=50, cluster="eu")
        stale = Observation(Report.RUNNING, 3, 49, cluster="us")
        assert observe(environment, stale, LATER).after.cluster == "eu"

    def test_terminated_frees_slot_and_name_and_keeps_a_tombstone(self) -> None:
        after = observe(an_environment(Status.TERMINATING), seen(Report.DELETED), LATER).after
        assert (after.slot, after.deleted_at, after.is_live) == (None, LATER, False)

    def test_a_failed_deletion_says_why_and_goes_on(self) -> None:
        environment = an_environment(Status.TERMINATING)
        change = observe(environment, seen(Report.FAILED, reason="ClusterGone"), LATER)
        assert (change.after.status, change.after.status_reason) == (Status.TERMINATING, "Cluster gone")
        again = observe(change.after, seen(Report.FAILED, sequence=51, reason="ClusterGone"), LATER)
        assert again.events == ()

    @pytest.mark.parametrize(
        ("reason", "message", "sentence"),
        [
            ("ImagePullFailed", "No such image.", "No such image (ImagePullFailed)"),
            ("ImagePullFailed", None, "Image pull failed"),
            (None, " two\n lines ", "two lines"),
            (None, None, "The runtime gave no reason"),
            (None, "x" * 900, "x" * 499 + "…"),
        ],
    )
    def test_the_reason_is_a_sentence(self, reason: str | None, message: str | None, sentence: str) -> None:
        assert failure_sentence(reason, message) == sentence


class TestEdit:
    def test_raises_version_but_not_generation(self) -> None:
        change = edit(an_environment(Status.RUNNING), Edit(name="new", startup_command="make"), LATER)
        assert (change.after.name, change.after.version, change.after.generation) == ("new", 8, 3)
        assert change.after.status is Status.RUNNING
        (event,) = change.events
        assert isinstance(event, EnvironmentUpdated)
        assert (event.name, event.version, event.spec.startup_command) == ("new", 8, "make")

    def test_an_empty_text_clears_and_none_leaves(self) -> None:
        environment = an_environment(description="d", startup_command="c")
        after = edit(environment, Edit(description=""), LATER).after
        assert (after.description, after.startup_command) == (None, "c")

    def test_nothing_new_is_no_change(self) -> None:
        environment = an_environment()
        same = Edit(name="one", resources=Resources(cpu="500m", memory="1Gi", storage="5Gi"), description="")
        assert edit(environment, same, LATER).is_empty

    def test_what_is_being_deleted_cannot_be_edited(self) -> None:
        with pytest.raises(TransitionForbiddenError, match="it is being deleted"):
            edit(an_environment(Status.TERMINATING), Edit(name="x"), LATER)


Step = tuple[str, Command | Report, int, int]

_commands = st.tuples(st.just("command"), st.sampled_from(Command), st.just(0), st.just(0))
# Reports about earlier, this and impossible later generations, with sequences that repeat and go back.
_reports = st.tuples(st.just("report"), st.sampled_from(Report), st.integers(-2, 1), st.integers(1, 12))


class TestAnyOrder:
    @given(st.lists(_commands | _reports, max_size=40))
    @settings(max_examples=400, deadline=None)
    def test_invariants_hold(self, steps: list[Step]) -> None:
        environment = an_environment(Status.CREATING, generation=1, version=1)
        applied = 0
        for kind, trigger, generation_offset, sequence in steps:
            before = environment
            environment = self._step(before, kind, trigger, before.generation + generation_offset, sequence)
            assert before.status is not Status.TERMINATED or environment == replace(
                before, version=environment.version, installation_completed=environment.installation_completed
            )
            assert environment.installation_completed >= before.installation_completed
            assert environment.version >= before.version
            assert (environment.slot is None) == (environment.status is Status.TERMINATED)
            assert (environment.status is Status.ERROR) <= (environment.status_reason is not None)
            if environment.generation > before.generation:
                applied = 0
                assert environment.status is not Status.RUNNING
            if environment.status is Status.RUNNING and before.status is not Status.RUNNING:
                assert (kind, trigger, generation_offset) == ("report", Report.RUNNING, 0)
                assert sequence > applied
                assert environment.desired is DesiredState.RUNNING
            applied = max(applied, environment.report_sequence)
            if before.desired is DesiredState.DELETED:
                assert environment.status in {Status.TERMINATING, Status.TERMINATED}

    # Delays are another matter, see test_any_order.py: they outdate no report of another kind.
    @given(st.lists(st.sampled_from(sorted({*Report} - {Report.DELAYED})), min_size=1, max_size=6), st.data())
    @settings(max_examples=300, deadline=None)
    def test_the_newest_report_of_a_generation_wins_in_any_order_with_repeats(
        self, reports: list[Report], data: st.DataObject
    ) -> None:
        """The newest applied last settles the status, whatever was delivered late or twice before and after it."""
        numbered = [seen(report, sequence=i) for i, report in enumerate(reports, 1)]
        shuffled = data.draw(st.permutations(numbered * 2))
        newest = numbered[-1]
        environment = an_environment(Status.STARTING)
        for observation in shuffled[: shuffled.index(newest) + 1]:
            environment = observe(environment, observation, LATER).after
        settled = environment
        for observation in shuffled[shuffled.index(newest) :]:
            environment = observe(environment, observation, LATER).after
        assert replace(environment, version=0, installation_completed=False) == replace(
            settled, version=0, installation_completed=False
        )
        assert environment.installation_completed == (Report.RUNNING in reports)
        if newest.report in {Report.RUNNING, Report.FAILED}:
            expected = Status.RUNNING if newest.report is Report.RUNNING else Status.ERROR
            assert environment.status is expected

    @given(st.sampled_from(Command), st.sampled_from(Status))
    def test_a_command_twice_is_as_once(self, command: Command, status: Status) -> None:
        try:
            once = decide(an_environment(status), command, LATER).after
        except TransitionForbiddenError:
            return
        assert decide(once, command, LATER).is_empty

    def _step(
        self, environment: Environment, kind: str, trigger: Command | Report, generation: int, sequence: int
    ) -> Environment:
        if isinstance(trigger, Report):
            return observe(environment, seen(trigger, generation, sequence), LATER).after
        try:
            return replace(decide(environment, trigger, LATER).after)
        except TransitionForbiddenError:
            return environment
