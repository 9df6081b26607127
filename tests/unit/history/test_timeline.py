"""Who, what, because of what, and how long since the step before."""

from __future__ import annotations

import json
import random
from datetime import timedelta

from libs.common.history.timeline import timeline
from tests.unit.history.makers import NOW, bad_night, raw, report, stored, wish


def test_steps_follow_their_causes() -> None:
    steps = timeline(bad_night())
    assert [(step.what, step.cause, step.depth) for step in steps] == [
        ("env.created", None, 0),
        ("runtime.running", 1, 1),
        ("env.status_changed", 2, 2),
        ("terminal.session_opened", None, 0),
        ("runtime.failed", None, 0),
        ("env.status_changed", 5, 1),
    ]
    assert [step.seconds_since_previous for step in steps] == [None, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_failures_say_why() -> None:
    failed, error = timeline(bad_night())[4:]
    assert (failed.is_failure, failed.status, failed.reason) == (True, "failed", "It keeps ending.")
    assert failed.detail == "generation 1, CrashLoop, It keeps ending."
    assert (error.is_failure, error.status, error.detail) == (
        True, "error", "running → error, generation 1, It keeps ending.",
    )  # fmt: skip
    assert not any(step.is_failure for step in timeline(bad_night())[:4])


def test_the_order_they_come_in_does_not_matter() -> None:
    night = bad_night()
    shuffled = [*night, *night[:3]]
    random.Random(3).shuffle(shuffled)
    assert timeline(shuffled) == timeline(night)


def test_a_cause_that_is_not_shown_is_no_row() -> None:
    (step,) = timeline([stored(report(), 2, causationid="elsewhere")])
    assert (step.cause, step.causation_id, step.depth) == (None, "elsewhere", 0)


def test_causes_in_a_circle_end() -> None:
    steps = timeline([stored(report(), 1, causationid="event-2"), stored(report(), 2, causationid="event-1")])
    assert [step.cause for step in steps] == [2, 1]
    itself = timeline([stored(report(), 1, causationid="event-1")])[0]
    assert itself.cause is None


def test_clocks_that_differ_show_as_they_are() -> None:
    early = (NOW - timedelta(seconds=1)).isoformat()
    assert timeline([stored(wish(), 1), stored(report(), 2, time=early)])[1].seconds_since_previous == -2.0


def test_garbage_is_a_step_and_a_failure() -> None:
    (step,) = timeline([raw(b"\xff", 1)])
    assert (step.what, step.is_failure, step.service) == ("unreadable", True, "?")
    assert step.time == NOW + timedelta(seconds=1)
    assert step.detail == step.problem == "not JSON: not UTF-8"


def test_secrets_are_no_detail() -> None:
    shown = json.dumps([step.as_json() for step in timeline(bad_night())])
    assert "SEALED" not in shown
