"""The terminal's read model on the real store: real histories, shuffled, repeated, dropped and brought again."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.terminal.domain import Environment
from services.terminal.repository import MongoEnvironments
from tests.integration.terminal.test_read_model import environments as environments  # noqa: PLC0414 - a fixture
from tests.support.histories import Life, Plan, plans

# The fixture is one store for all examples; each has an environment of its own in it.
_ON_ONE_STORE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(deadline=None, max_examples=25, suppress_health_check=_ON_ONE_STORE)
@given(plan=plans, random=st.randoms(use_true_random=False))
async def test_the_end_is_the_same(environments: MongoEnvironments, plan: Plan, random: Random) -> None:
    life = await Life.lived(plan)
    told = [entry.data for entry in life.told]
    late = random.sample(told, len(told) // 3)
    arrivals = [one for one in told if one not in late] + random.choices(told, k=5)
    random.shuffle(arrivals)
    for data in [*arrivals, *late]:
        await environments.apply(data)
    last, status = life.last, [one for one in told if hasattr(one, "previous")]
    assert await environments.find(last.id) == Environment(
        id=last.id,
        user_id=last.user_id,
        generation=last.generation,
        desired=last.desired,
        status=last.status if status else None,
    )
