"""Messages per second, on a clock of our own."""

from __future__ import annotations

import asyncio

import pytest

from libs.common.contracts.identity import Plan
from services.terminal.domain import Caller
from services.terminal.service.rate import Bucket, MessageRate, MessageRates


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Shared:
    """What the replicas share; `away`: it cannot be asked."""

    def __init__(self, clock: Clock, per_second: int) -> None:
        self.bucket = Bucket(per_second, clock)
        self.away = False
        self.asked = 0

    async def draw(self, user_id: str, wanted: int, per_second: int, capacity: int) -> int | None:
        self.asked += 1
        await asyncio.sleep(0)
        return None if self.away else self.bucket.draw(wanted)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def sent(rate: MessageRate, count: int) -> int:
    """How many of so many messages are allowed."""
    return sum([await rate.allows_one() for _ in range(count)])


def test_a_bucket_gives_a_burst_of_two_seconds_then_the_average(clock: Clock) -> None:
    bucket = Bucket(10, clock)
    assert [bucket.draw(15), bucket.draw(15), bucket.draw(15)] == [15, 5, 0]
    clock.now += 1
    assert bucket.draw(100) == 10
    clock.now += 1000
    assert bucket.draw(100) == 20


async def test_one_replica_may_use_all_of_it(clock: Clock) -> None:
    rate = MessageRate("u", 100, Shared(clock, 100), clock)
    assert await sent(rate, 500) == 200
    clock.now += 1
    assert await sent(rate, 500) == 100


async def test_replicas_share_it(clock: Clock) -> None:
    shared = Shared(clock, 100)
    one, two = MessageRate("u", 100, shared, clock), MessageRate("u", 100, shared, clock)
    assert await sent(one, 120) == 120
    allowed = await sent(two, 500)
    assert 30 <= allowed <= 80
    assert allowed + 120 + await sent(one, 500) == 200


async def test_a_message_costs_a_fraction_of_a_round_trip_and_one_too_many_none(clock: Clock) -> None:
    shared = Shared(clock, 100)
    rate = MessageRate("u", 100, shared, clock)
    await sent(rate, 200)
    assert shared.asked <= 20
    asked = shared.asked
    assert await sent(rate, 1000) == 0
    assert shared.asked <= asked + 1


async def test_alone_it_counts_by_itself_and_comes_back(clock: Clock) -> None:
    shared = Shared(clock, 100)
    shared.away = True
    rate = MessageRate("u", 100, shared, clock)
    assert await sent(rate, 500) == 200
    assert shared.asked == 1
    shared.away = False
    clock.now += 10
    assert await sent(rate, 500) == 200
    assert shared.asked > 2


async def test_connections_of_a_user_share_a_rate_that_the_plan_or_the_setting_gives(clock: Clock) -> None:
    free, pro = Caller("u", "l", Plan.FREE), Caller("v", "l", Plan.PRO)
    rates = MessageRates(Shared(clock, 100), per_second=None)
    with rates.of(free) as one, rates.of(free) as two, rates.of(pro) as other:
        assert one is two
        assert (one.per_second, other.per_second) == (200, 1000)
    with MessageRates(Shared(clock, 100), per_second=7).of(pro) as set_by_hand:
        assert set_by_hand.per_second == 7


async def test_a_client_that_comes_and_goes_pays_for_its_messages_only(clock: Clock) -> None:
    shared = Shared(clock, 200)
    rates = MessageRates(shared, per_second=None)
    for _ in range(100):
        with rates.of(Caller("u", "l", Plan.FREE)) as rate:
            assert await rate.allows_one()
    assert shared.asked < 10


async def test_users_who_left_are_forgotten_in_the_end(clock: Clock) -> None:
    rates = MessageRates(Shared(clock, 200), per_second=None)
    with rates.of(Caller("who stays", "l", Plan.FREE)) as rate:
        for number in range(1_500):
            with rates.of(Caller(f"user-{number}", "l", Plan.FREE)):
                pass
        assert len(rates) == 1_001
        with rates.of(Caller("who stays", "l", Plan.FREE)) as again:
            assert again is rate
