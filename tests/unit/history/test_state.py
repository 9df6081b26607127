"""The state folded from events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.environments import DesiredState
from libs.common.contracts.events import (
    EnvironmentStatusChanged,
    EnvironmentStopRequested,
    EnvironmentUpdated,
    RuntimeDelayed,
    RuntimeFailed,
    RuntimeProvisioning,
    RuntimeStopped,
)
from libs.common.history.errors import NoSuchEventError
from libs.common.history.recorded import Recorded
from libs.common.history.state import EnvironmentState, fold, up_to
from libs.common.history.story import state_of
from tests.unit.history.makers import ENV, NOW, bad_night, closed, opened, raw, report, status, stored, wish

STOPPED = DesiredState.STOPPED
LONG_STORY = [
    *bad_night(),
    stored(wish(EnvironmentStopRequested, version=4, generation=2, desired=STOPPED), 7),
    stored(status("stopping", "error", version=4, generation=2), 8),
    stored(report(RuntimeProvisioning), 9),
    stored(closed(), 10),
    stored(report(RuntimeStopped, generation=2), 11),
    stored(status("stopped", "stopping", version=5, generation=2), 12),
    stored(wish(EnvironmentUpdated, version=6, generation=2, name="renamed", variables=None, desired=STOPPED), 13),
    raw(b"garbage", 14),
]


def folded(events: Sequence[Recorded]) -> EnvironmentState:
    state = fold(ENV, events)
    assert state is not None
    return state


def in_europe(data: EnvironmentStatusChanged) -> EnvironmentStatusChanged:
    return data.model_copy(update={"cluster": "eu-1"})


def values(state: EnvironmentState, *names: str) -> list[object]:
    return [state.facts[name].value for name in names]


def test_the_end_of_a_story() -> None:
    state = folded(LONG_STORY)
    assert values(state, "name", "desired", "status", "status_reason", "generation", "version", "variables") == [
        "renamed", "stopped", "stopped", None, 2, 6, "none",
    ]  # fmt: skip
    assert state.facts["report"].value["said"] == "stopped"
    assert (state.events, state.not_understood, state.last.sequence, state.sessions) == (14, 1, 14, {})


def test_it_says_since_when_and_by_which_event() -> None:
    facts = folded(LONG_STORY).facts
    assert (facts["status"].sequence, facts["status"].since) == (12, NOW + timedelta(seconds=12))
    assert facts["desired"].sequence == 7
    assert facts["template"].sequence == 1


def test_a_new_environment_is_creating() -> None:
    assert values(folded(LONG_STORY[:1]), "status", "variables") == ["creating", "sealed"]


def test_open_terminals_are_counted() -> None:
    state = folded([*bad_night(), stored(opened("s2"), 7), stored(closed("s1"), 8)])
    assert list(state.sessions) == ["s2"]


def test_older_versions_and_older_reports_change_nothing() -> None:
    late = [*LONG_STORY, stored(status("running", version=2), 20), stored(report(RuntimeFailed), 21)]
    assert values(folded(late), "status", "report") == values(folded(LONG_STORY), "status", "report")
    assert folded(late).changed == ()


def test_what_the_last_step_changed() -> None:
    assert [(item.field, item.before, item.after) for item in folded(LONG_STORY[:6]).changed] == [
        ("status", "running", "error"),
        ("status_reason", None, "It keeps ending."),
        ("version", 2, 3),
    ]
    assert [item.field for item in folded(LONG_STORY[:10]).changed] == ["session s1"]


def test_it_says_in_which_cluster_and_what_holds_it_up() -> None:
    story = [
        stored(wish(), 1),
        stored(report(RuntimeDelayed, cluster="eu-1", reason="NoRoom", message="It is full."), 2),
        stored(in_europe(status("creating", version=2, reason="It is full (NoRoom)")), 3),
    ]
    held_up = folded(story)
    assert values(held_up, "status", "status_reason", "cluster") == ["creating", "It is full (NoRoom)", "eu-1"]
    said = held_up.facts["report"].value
    assert [said[name] for name in ("said", "reason", "message", "cluster")] == [
        "delayed", "NoRoom", "It is full.", "eu-1",
    ]  # fmt: skip
    assert {item.field for item in held_up.changed} == {"status_reason", "cluster", "version"}
    running = in_europe(status("running", version=3))
    over = folded([*story, stored(report(cluster="eu-1"), 4), stored(running, 5)])
    assert values(over, "status", "status_reason", "cluster") == ["running", None, "eu-1"]
    assert over.facts["report"].value["said"] == "running"
    assert over.facts["cluster"].sequence == 3


def test_a_cluster_is_not_known_before_it_was_told() -> None:
    assert "cluster" not in folded(LONG_STORY[:1]).facts


def test_events_about_others_do_not_count() -> None:
    assert fold("e2", LONG_STORY) is None


def test_up_to_a_time_or_a_place() -> None:
    assert [item.sequence for item in up_to(LONG_STORY, at=NOW + timedelta(seconds=3))] == [1, 2, 3]
    assert [item.sequence for item in up_to(LONG_STORY, sequence=2)] == [1, 2]


def test_nothing_yet_and_nothing_at_all_are_told_apart() -> None:
    with pytest.raises(NoSuchEventError, match="its first is 1 at 2026-11-25T03:00:01"):
        state_of(ENV, LONG_STORY, at=NOW)
    with pytest.raises(NoSuchEventError, match="no event is about environment e1"):
        state_of(ENV, [])


def test_secrets_are_no_part_of_it() -> None:
    assert "SEALED" not in json.dumps(folded(LONG_STORY).as_json())


@given(st.permutations(LONG_STORY), st.lists(st.sampled_from(LONG_STORY)))
def test_any_order_and_any_repeats_give_the_same(order: list[Recorded], repeats: list[Recorded]) -> None:
    assert folded([*order, *repeats]).as_json() == folded(LONG_STORY).as_json()


@given(st.permutations(LONG_STORY[:12]))
def test_a_repeat_beyond_the_duplicate_window_changes_nothing(order: list[Recorded]) -> None:
    later = [raw(item.payload, item.sequence + 100, item.subject) for item in LONG_STORY[:12]]
    assert folded([*later, *order]).as_json() == folded(LONG_STORY[:12]).as_json()
