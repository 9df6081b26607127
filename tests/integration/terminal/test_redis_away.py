"""Without Redis: connections are counted per process, tickets are refused with 503; and Redis counts over replicas."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from libs.common import redis
from libs.common.contracts.identity import Plan
from libs.common.errors import UnavailableError
from libs.common.ids import new_id
from services.terminal.cache import RedisSlots, RedisTickets
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


class TestSlots:
    async def test_with_redis_away_this_process_counts(self, away: Redis) -> None:
        slots, user_id = RedisSlots(away, limit=2), new_id()
        await slots.take(user_id, "a")
        await slots.take(user_id, "b")
        with pytest.raises(TooManyConnectionsError):
            await slots.take(user_id, "c")
        await slots.take(new_id(), "d")
        await slots.release(user_id, "a")
        await slots.take(user_id, "c")

    async def test_replicas_count_together_and_a_dead_one_leaks_nothing(self, there: Redis) -> None:
        one, two, user_id = RedisSlots(there, limit=2), RedisSlots(there, limit=2), new_id()
        await one.take(user_id, "a")
        await two.take(user_id, "b")
        with pytest.raises(TooManyConnectionsError):
            await one.take(user_id, "c")
        # As if `two` had been killed and its entries had run out of time.
        await there.zadd(f"devpocket:connections:{user_id}", {"b": 1})
        await one.take(user_id, "c")
        assert 0 < await there.ttl(f"devpocket:connections:{user_id}") <= 60

    async def test_a_refresh_prolongs_and_restores(self, there: Redis) -> None:
        slots, user_id = RedisSlots(there, limit=2), new_id()
        await slots.take(user_id, "a")
        await there.delete(f"devpocket:connections:{user_id}")
        await slots.refresh()
        assert await there.zcard(f"devpocket:connections:{user_id}") == 1
        await slots.release(user_id, "a")
        assert await there.zcard(f"devpocket:connections:{user_id}") == 0


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
