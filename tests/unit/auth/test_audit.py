"""Which events are deeds, and what the trail keeps of them."""

from __future__ import annotations

import pytest

from libs.common.context import Cause
from libs.common.contracts.events import EVENT_TYPES, Event, EventData, RuntimeRunning
from libs.common.contracts.identity import Plan, Scope
from libs.common.contracts.users import USER_EVENTS, UserApiKeyCreated, UserLoggedIn, UserPlanChanged
from services.auth.domain.audit import ACTIONS, entry_of
from tests.support.accounts import OUTDATED

CAUSE = Cause(correlation_id="r-1", causation_id=None, actor="boss", address="192.0.2.7")


def event(data: EventData) -> Event:
    return Event.new(data, subject=data.aggregate_id, source="auth", cause=CAUSE)


class TestEntry:
    def test_tells_who_what_when_and_from_where(self) -> None:
        said = event(
            UserPlanChanged(user_id="u", username="ada", plan=Plan.PRO, is_active=True, is_verified=True, version=2)
        )
        entry = entry_of(said)
        assert entry is not None
        assert (entry.id, entry.at, entry.action) == (said.id, said.time, "user.plan_changed")
        assert (entry.actor, entry.address, entry.correlation_id) == ("boss", "192.0.2.7", "r-1")
        assert (entry.subject, entry.user_id, entry.details) == ("u", "u", {"plan": "pro"})

    def test_keeps_no_hash(self) -> None:
        said = event(
            UserApiKeyCreated(
                **OUTDATED, user_id="u", key_id="k", name="laptop", scopes=[Scope.READ], secret_hash="5" * 64
            )
        )
        entry = entry_of(said)
        assert entry is not None
        assert entry.details == {"key_id": "k", "name": "laptop", "scopes": ["read"]}

    def test_a_service_that_acts_on_its_own_is_named(self) -> None:
        said = Event.new(
            UserLoggedIn(user_id="u", session_id="s", method="google"), subject="u", source="auth", cause=Cause()
        )
        entry = entry_of(said)
        assert entry is not None
        assert (entry.actor, entry.address) == ("auth", None)

    def test_what_the_runtime_reports_is_no_deed(self) -> None:
        said = event(RuntimeRunning(environment_id="e", user_id="u", generation=1, runtime="local"))
        assert entry_of(said) is None


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_is_an_event_that_exists(action: str) -> None:
    assert f"devpocket.{action}.v1" in EVENT_TYPES


def test_all_that_happens_to_an_account_is_a_deed() -> None:
    assert {model.TYPE.removesuffix(".v1") for model in USER_EVENTS} <= set(ACTIONS)
