"""Redis counts over replicas. Without it connections and messages are counted per process, tickets refused with 503."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from libs.common import redis
from libs.common.contracts.identity import PLAN_LIMITS, Plan
from libs.common.errors import UnavailableError
from libs.common.ids import new_id
from services.terminal.cache import RedisAllowance, RedisSlots, RedisTickets
from services.terminal.domain import Caller, SocketKind, TooManyConnectionsError
from services.terminal.ports import Ticket
from tests.integration.terminal.harness import terminal_settings
from tests.support.servers import Servers, free_port


@pytest.fixture
async def away(backend: Servers) -> AsyncIterator[Redis]:
    client = redis.connect(terminal_settings(backend, redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    yield client
    await client.aclose()


@pytest.fixture
async def there(backend: Servers) -> AsyncIterator[Redis]:
    client = redis.connect(terminal_settings(backend))
    yield client
    await client.aclose()


def somebody(plan: Plan = Plan.FREE) -> Caller:
    return Caller(new_id(), "l", plan)


class TestSlots:
    async def test_with_redis_away_this_process_counts(self, away: Redis) -> None:
        slots, user = RedisSlots(away, limit=2), somebody()
        await slots.take(user, "a")
        await slots.take(user, "b")
        with pytest.raises(TooManyConnectionsError):
            await slots.take(user, "c")
        await slots.take(somebody(), "d")
        await slots.release(user.user_id, "a")
        await slots.take(user, "c")

    async def test_replicas_count_together_and_a_dead_one_leaks_nothing(self, there: Redis) -> None:
        one, two, user = RedisSlots(there, limit=2), RedisSlots(there, limit=2), somebody()
        await one.take(user, "a")
        await two.take(user, "b")
        with pytest.raises(TooManyConnectionsError):
            await one.take(user, "c")
        # As if `two` had been killed and its entries had run out of time.
        await there.zadd(f"devpocket:connections:{user.user_id}", {"b": 1})
        await one.take(user, "c")
        assert 0 < await there.ttl(f"devpocket:connections:{user.user_id}") <= 60

    @pytest.mark.parametrize("plan", Plan)
    async def test_the_plan_says_how_many_unless_a_setting_does(self, there: Redis, plan: Plan) -> None:
        slots, user, limit = RedisSlots(there, limit=None), somebody(plan), PLAN_LIMITS[plan].connections
        for number in range(limit):
            await slots.take(user, str(number))
        with pytest.raises(TooManyConnectionsError) as refused:
            await slots.take(user, "more")
        assert f"{limit} open connections" in refused.value.message
        await RedisSlots(there, limit=limit + 1).take(user, "more")

    async def test_a_refresh_prolongs_and_restores(self, there: Redis) -> None:
        slots, user = RedisSlots(there, limit=2), somebody()
        key = f"devpocket:connections:{user.user_id}"
        await slots.take(user, "a")
        await there.delete(key)
        await slots.refresh()
        assert await there.zcard(key) == 1
        await slots.release(user.user_id, "a")
        assert await there.zcard(key) == 0


class TestAllowance:
    async def test_a_burst_then_the_average_whoever_asks(self, there: Redis) -> None:
        one, two, user_id = RedisAllowance(there), RedisAllowance(there), new_id()
        grants = [await part.draw(user_id, 40, 1, 100) or 0 for part in (one, two, one, two)]
        # One more with every second that this takes.
        assert grants[:2] == [40, 40]
        assert 100 <= sum(grants) < 110
        await there.hincrbyfloat(f"devpocket:messages:{user_id}", "at", -30)
        assert await two.draw(user_id, 40, 1, 100) in range(30, 41)
        assert await one.draw(new_id(), 40, 1, 100) == 40
        assert 0 < await there.pttl(f"devpocket:messages:{user_id}") <= 101_000

    async def test_with_redis_away_it_cannot_be_asked(self, away: Redis) -> None:
        assert await RedisAllowance(away).draw(new_id(), 1, 1, 1) is None


class TestTickets:
    async def test_with_redis_away_there_are_none(self, away: Redis) -> None:
        tickets = RedisTickets(away)
        ticket = Ticket(Caller("u", "l", Plan.FREE), "e", SocketKind.LOGS)
        with pytest.raises(UnavailableError):
            await tickets.put("k", ticket, 30)
        with pytest.raises(UnavailableError):
            await tickets.take("k")

    async def test_what_is_put_is_taken_once(self, there: Redis) -> None:
        tickets, key = RedisTickets(there), new_id()
        ticket = Ticket(Caller("u", "l", Plan.PRO), "e", SocketKind.LOGS)
        await tickets.put(key, ticket, 30)
        assert await tickets.take(key) == ticket
        assert await tickets.take(key) is None
