"""Wishes come in."""

from __future__ import annotations

from libs.common.context import Cause, acting
from libs.common.contracts.events import EnvironmentStopRequested
from services.orchestrator.domain.model import WishCause
from tests.unit.orchestrator.memory import an_update, wish
from tests.unit.orchestrator.service.conftest import Desk


class TestAccept:
    async def test_news_wants_a_look(self, desk: Desk) -> None:
        assert await desk.wish(wish())
        assert desk.poked == ["env1"]

    async def test_a_repetition_does_not(self, desk: Desk) -> None:
        await desk.wish(wish(EnvironmentStopRequested, generation=2))
        assert not await desk.wish(wish(EnvironmentStopRequested, generation=2))
        assert not await desk.wish(wish(generation=1))
        assert desk.poked == ["env1"]

    async def test_the_cause_of_work_is_kept_and_an_update_is_none(self, desk: Desk) -> None:
        with acting(Cause("request-1", "event-1", "orchestrator")):
            await desk.wish(wish())
        with acting(Cause("request-2", "event-2", "orchestrator")):
            await desk.wish(an_update(2))
        assert desk.environment().name == "renamed"
        assert desk.environment().cause == WishCause("request-1", "event-1", {})
