"""Redis: revocations, tickets and rate limits. Nothing in it is the only copy of anything that must last."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from libs.common.settings import CommonSettings

UNAVAILABLE_ERRORS = (RedisConnectionError, RedisTimeoutError)

# Every use of Redis has a fallback, so a call must fail fast rather than hold up a request.
_TIMEOUT_S = 1.0


def connect(settings: CommonSettings) -> Redis:
    """A client; connections are made at first use. Answers are text."""
    return Redis.from_url(
        settings.redis_url.get_secret_value(),
        decode_responses=True,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), 1),
    )
