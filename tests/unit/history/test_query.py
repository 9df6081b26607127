"""Questions about events."""

from __future__ import annotations

from datetime import timedelta

import pytest

from libs.common.history.errors import BadTimeError
from libs.common.history.query import EventQuery, parse_time, type_matches
from tests.unit.history.makers import NOW, bad_night, raw


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("created", True),
        ("env.created", True),
        ("devpocket.env.created.v1", True),
        ("env", True),
        ("creat", False),
        ("created.env", False),
    ],
)
def test_types_match_by_whole_parts(wanted: str, expected: bool) -> None:
    assert type_matches("devpocket.env.created.v1", wanted) is expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (EventQuery(), [1, 2, 3, 4, 5, 6]),
        (EventQuery(environment="e1", type="runtime"), [2, 5]),
        (EventQuery(environment="e2"), []),
        (EventQuery(since=NOW + timedelta(seconds=5)), [5, 6]),
        (EventQuery(correlation="request-2"), [4]),
        (EventQuery(user="u1"), [1, 2, 3, 4, 5, 6]),
        (EventQuery(user="u2"), []),
    ],
)
def test_what_is_meant(query: EventQuery, expected: list[int]) -> None:
    assert [item.sequence for item in bad_night() if query.matches(item)] == expected


def test_a_users_own_events_are_the_users_even_when_unreadable() -> None:
    assert EventQuery(user="u1").matches(raw(b"garbage", 1, "devpocket.user.u1.registered"))


@pytest.mark.parametrize("text", ["yesterday", "", "10", "10w", "999999d" * 20, "2026-13-01"])
def test_a_time_that_is_none_says_how_to_write_one(text: str) -> None:
    with pytest.raises(BadTimeError, match="write 30s"):
        parse_time(text)


def test_too_long_ago_is_no_time() -> None:
    with pytest.raises(BadTimeError):
        parse_time("999999d")
