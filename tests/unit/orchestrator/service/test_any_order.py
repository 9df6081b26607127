"""Wishes as envs really says them: any order, any repetition, the same record and no more looks than news."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.events import EnvironmentWish
from tests.support.histories import Life, Plan, plans
from tests.unit.orchestrator.memory import FakeClock, MemoryStore
from tests.unit.orchestrator.service.conftest import Desk


class TestWishes:
    @settings(deadline=None, max_examples=150)
    @given(plan=plans, random=st.randoms(use_true_random=False))
    async def test_the_record_is_the_same(self, plan: Plan, random: Random) -> None:
        wishes = (await Life.lived(plan)).wishes
        late = random.sample(wishes, random.randrange(len(wishes) + 1))
        early = [wish for wish in wishes if wish not in late] + random.choices(wishes, k=random.randrange(4))
        random.shuffle(early)
        assert await self._heard([*early, *late]) == await self._heard(wishes)

    async def _heard(self, wishes: list[EnvironmentWish]) -> dict[str, Any]:
        desk = Desk(MemoryStore(), FakeClock())
        for wish in wishes:
            looks = len(desk.poked)
            news = await desk.wish(wish)
            assert len(desk.poked) == looks + news
            assert not await desk.wish(wish), "a repeated wish is no news"
        assert len(desk.poked) <= len({wish.version for wish in wishes})
        record = desk.environment(wishes[0].environment_id)
        fields = ("user_id", "name", "region", "desired", "generation", "version", "spec")
        return {name: getattr(record, name) for name in fields}
