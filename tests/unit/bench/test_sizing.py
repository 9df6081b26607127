"""The arithmetic of docs/scaling.md."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.sizing import TUNED, USERS, Assumptions, Costs, cores, demands, replicas, table

DOCUMENT = Path(__file__).parents[3] / "docs" / "scaling.md"
ONE = Assumptions(users=86_400, active_share=0.5, lifecycles_per_user_day=1, logins_per_user_day=1, peak=1)


def test_rates_are_those_of_a_day_times_the_peak() -> None:
    found = demands(ONE, Costs())
    assert (found["lifecycles/s"], found["logins/s"]) == (1.0, 1.0)
    assert demands(replace(ONE, peak=3), Costs())["logins/s"] == 3.0
    assert found["samples/s"] == 43_200 / ONE.usage_s


def test_a_month_of_the_stream_is_thirty_days_of_events() -> None:
    costs = Costs(events_per_lifecycle=4, event_bytes=1024**3 / 86_400)
    assert demands(replace(ONE, sessions_per_active=0), costs)["stream GiB, 30 days"] == pytest.approx(30 * 5)


def test_a_login_a_second_keeps_a_core_busy_for_as_long_as_its_hash_takes() -> None:
    assert cores(ONE, Costs(login_ms=250, auth_lifecycle_ms=0))["auth"] == pytest.approx(0.25)


def test_replicas_are_two_at_least_and_grow_with_users() -> None:
    needed = [replicas(Assumptions(users=users), Costs()) for users in (1, 1e5, 1e6, 1e7)]
    assert set(needed[0].values()) == {2, 1}
    for less, more in itertools.pairwise(needed):
        assert all(more[name] >= less[name] for name in less)
    assert needed[-1]["clusters"] == 200


def test_the_document_shows_what_the_calculator_says() -> None:
    shown = DOCUMENT.read_text().partition("<!-- sizing -->")[2].partition("<!-- /sizing -->")[0]
    assert shown.strip() == table(Assumptions(), Costs(), USERS, TUNED)
