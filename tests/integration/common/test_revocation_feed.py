"""A process that cannot have heard of a revocation reads it back from the stream, on real NATS and Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js import JetStreamContext

from libs.common import redis
from libs.common.clock import utc_now
from libs.common.context import Cause
from libs.common.contracts.events import Event
from libs.common.contracts.users import UserSessionsRevoked
from libs.common.ids import new_id
from libs.common.messaging.broker import Bus
from libs.common.messaging.streams import EVENTS_STREAM, ensure_streams
from libs.common.security.api_keys import key_session_id
from libs.common.security.revocation import Revocations
from libs.common.security.revocation_feed import RevocationFeed
from libs.common.settings import CommonSettings
from tests.support.servers import Servers, nats_server

LIFE_S = 600.0


def revoked(*session_ids: str, age_s: float = 0.0) -> Event:
    data = UserSessionsRevoked(user_id="u", session_ids=list(session_ids), reason="key_revoked")
    event = Event.new(data, subject="u", source="auth", cause=Cause())
    return event.model_copy(update={"time": utc_now() - timedelta(seconds=age_s)})


async def publish(js: JetStreamContext, event: Event) -> None:
    await js.publish(event.nats_subject, event.model_dump_json().encode(), stream=EVENTS_STREAM)


class Process:
    """What a service has of it."""

    def __init__(self, settings: CommonSettings) -> None:
        self.redis = redis.connect(settings)
        self.bus = Bus(settings, "envs")
        self.revocations = Revocations(self.redis, token_life_s=LIFE_S)
        self.feed = RevocationFeed(self.bus, self.revocations, token_life_s=LIFE_S)
        self.heard: list[str] = []
        self.revocations.on_revoked(self.heard.append)

    async def knows(self, session_id: str) -> None:
        async with asyncio.timeout(15):
            while not self.revocations.is_revoked(session_id):  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running(settings: CommonSettings) -> AsyncIterator[Process]:
    process = Process(settings)
    await process.bus.probe()
    await process.bus.start()
    try:
        yield process
    finally:
        await process.feed.stop()
        await process.bus.stop()
        await process.redis.aclose()


@pytest.fixture
def settings(clean_backend: Servers, make_settings: Callable[..., Any]) -> CommonSettings:
    settings: CommonSettings = make_settings(CommonSettings)
    return settings


async def test_a_new_stream_tells_nothing(settings: CommonSettings) -> None:
    async with running(settings) as process:
        await process.feed.recall()
        assert process.heard == []


async def test_what_was_revoked_before_is_known_with_the_life_it_has_left(settings: CommonSettings) -> None:
    key = key_session_id(new_id(), 3)
    async with running(settings) as process:
        await publish(process.bus.jetstream, revoked("s1", key, age_s=LIFE_S - 60))
        await process.feed.recall()
        assert process.heard == ["s1", key]
        await process.revocations.load()
        pairs: Any = await process.redis.zrange("devpocket:revoked_sessions", 0, -1, withscores=True)
    stored = dict(pairs)
    assert stored.keys() == {"s1", key}
    for until in stored.values():
        assert 30 < until - utc_now().timestamp() <= 60


async def test_what_is_over_is_forgotten(settings: CommonSettings) -> None:
    async with running(settings) as process:
        await publish(process.bus.jetstream, revoked("s1", age_s=LIFE_S + 1))
        await process.feed.recall()
        await process.revocations.load()
        assert not process.revocations.is_revoked("s1")
        assert await process.redis.zcard("devpocket:revoked_sessions") == 0


async def test_garbage_keeps_nobody_from_the_rest(settings: CommonSettings) -> None:
    async with running(settings) as process:
        js = process.bus.jetstream
        early = revoked("s0").model_dump(mode="json") | {"time": "0001-01-01T00:00:00"}
        for payload in (b"", b"{}", b"[" * 100_000, Event.model_validate(early).model_dump_json().encode()):
            await js.publish("devpocket.user.u.sessions_revoked", payload, stream=EVENTS_STREAM)
        await publish(js, revoked("s1"))
        await process.feed.recall()
        assert process.revocations.is_revoked("s1")


async def test_what_is_revoked_from_now_on_is_heard_at_once(settings: CommonSettings) -> None:
    async with running(settings) as process:
        await process.feed.hear()
        await process.feed.recall()
        await publish(process.bus.jetstream, revoked("s1"))
        await process.knows("s1")


async def test_what_was_said_while_nats_was_away_is_read_back(settings: CommonSettings, tmp_path: Path) -> None:
    server = nats_server(tmp_path)
    server.start()
    url = f"nats://127.0.0.1:{server.port}"
    own = CommonSettings(_env_file=None, nats_url=url, redis_url=settings.redis_url.get_secret_value())
    try:
        async with running(own) as process:
            await process.feed.recall()
            await process.feed.start()
            # Nothing is heard here, as if every message had been lost: it can be known by reading back only.
            await publish(process.bus.jetstream, revoked("s1"))
            server.kill()
            server.start()
            client = await nats.connect(url)
            await ensure_streams(client.jetstream(), own)
            await publish(client.jetstream(), revoked("s2"))
            await client.close()
            await process.knows("s2")
            assert process.heard == ["s1", "s2"]
    finally:
        server.stop()
