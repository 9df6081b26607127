"""A revocation is known everywhere when it is answered, on a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from libs.common.ids import new_id
from libs.common.redis import connect
from libs.common.security.revocation import CONFIRM_WITHIN_S, Revocations
from libs.common.settings import CommonSettings
from tests.support.servers import LocalServer, redis_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LocalServer]:
    """A Redis that may be stopped."""
    running = redis_server(tmp_path)
    running.start()
    yield running
    running.stop()


def client(server: LocalServer) -> Redis:
    return connect(CommonSettings(_env_file=None, redis_url=f"redis://127.0.0.1:{server.port}/0"))


# A process that is late on a busy machine has not forgotten.
_PATIENCE_S = 30.0


@asynccontextmanager
async def listening(
    server: LocalServer, *, count: int, confirm_within_s: float = _PATIENCE_S
) -> AsyncIterator[list[Revocations]]:
    redis = client(server)
    processes = [Revocations(redis, token_life_s=60.0, confirm_within_s=confirm_within_s) for _ in range(count)]
    for process in processes:
        await process.start()
    while dict(await redis.pubsub_numsub("devpocket:revocations"))["devpocket:revocations"] < count:
        await processes[0].load()
    yield processes
    for process in processes:
        await process.stop()
    await redis.aclose()


async def test_every_process_knows_when_store_returns(server: LocalServer) -> None:
    async with listening(server, count=4) as processes:
        for _ in range(50):
            session_id = new_id()
            await processes[0].store([session_id])
            assert all(process.is_revoked(session_id) for process in processes)


async def test_a_process_that_starts_later_learns_it_from_the_set(server: LocalServer) -> None:
    async with listening(server, count=1) as (early,):
        await early.store(["s1"])
    late = Revocations(client(server), token_life_s=60.0)
    await late.load()
    assert late.is_revoked("s1")


async def test_stopping_comes_to_an_end_whatever_is_going_on(server: LocalServer) -> None:
    async with asyncio.timeout(30):
        for number in range(100):
            async with listening(server, count=1) as (process,):
                await process.store([f"s{number}"])


async def test_an_expired_revocation_is_forgotten(server: LocalServer) -> None:
    short = Revocations(client(server), token_life_s=-1.0)
    await short.store(["s1"])
    await short.load()
    assert not short.is_revoked("s1")


async def test_what_was_revoked_while_redis_was_away_is_known_to_processes_that_start_later(
    server: LocalServer,
) -> None:
    redis = client(server)
    early = Revocations(redis, token_life_s=60.0)
    server.kill()
    await early.store(["s1"])
    server.start()
    await early.load()
    late = Revocations(redis, token_life_s=60.0)
    await late.load()
    assert late.is_revoked("s1")
    await redis.aclose()


async def test_a_revocation_is_not_kept_alive_by_those_who_read_it(server: LocalServer) -> None:
    redis = client(server)
    await Revocations(redis, token_life_s=60.0).store(["s1"])
    (before,) = await redis.zrange("devpocket:revoked_sessions", 0, -1, withscores=True)
    reader = Revocations(redis, token_life_s=3600.0)
    await reader.load()
    await redis.delete("devpocket:revoked_sessions")
    await reader.load()
    (after,) = await redis.zrange("devpocket:revoked_sessions", 0, -1, withscores=True)
    assert after == before
    await redis.aclose()


async def test_a_process_that_does_not_confirm_delays_the_answer_and_no_more(server: LocalServer) -> None:
    redis = client(server)
    async with redis.pubsub() as silent:
        await silent.subscribe("devpocket:revocations")
        async with listening(server, count=1, confirm_within_s=0.05) as (process,):
            await process.store(["s1"])
            assert process.is_revoked("s1")
    assert CONFIRM_WITHIN_S < 1.0
    await redis.aclose()


async def test_without_redis_it_is_remembered_here_and_listeners_come_back(server: LocalServer) -> None:
    async with listening(server, count=2) as (one, two):
        server.kill()
        await one.store(["s1"])
        assert one.is_revoked("s1")
        server.start()
        redis = client(server)
        while dict(await redis.pubsub_numsub("devpocket:revocations"))["devpocket:revocations"] < 2:
            await redis.ping()
        await one.store(["s2"])
        assert two.is_revoked("s2")
        await redis.aclose()
