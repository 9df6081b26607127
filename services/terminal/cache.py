"""Redis: tickets, preview cookies, and what all replicas count together for a user: connections, and messages."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

import structlog
from redis.asyncio import Redis

from libs.common.contracts.identity import PLAN_LIMITS, Plan
from libs.common.errors import UnavailableError
from libs.common.redis import UNAVAILABLE_ERRORS
from services.terminal.domain import Caller, SocketKind, TooManyConnectionsError
from services.terminal.ports import Grant, Ticket

# A slot outlives its replica by this much; refreshed at every upkeep round, several times within it.
_SLOT_LIFE_S = 20
_WARN_EVERY_S = 10.0

# KEYS[1]: the user's slots, a sorted set of connection ids by expiry. ARGV: limit (0: none), life in seconds, ids.
# The server's clock decides, so that replicas need not agree on the time.
_TAKE = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local limit = tonumber(ARGV[1])
if limit > 0 and redis.call('ZCARD', KEYS[1]) >= limit then return 0 end
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[i]) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""

# A token bucket. KEYS[1]: the user's, a hash. ARGV: wanted, per second, capacity. Answers with what is granted.
_DRAW = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local rate, capacity = tonumber(ARGV[2]), tonumber(ARGV[3])
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = capacity
if held[1] then tokens = math.min(capacity, tonumber(held[1]) + math.max(now - tonumber(held[2]), 0) * rate) end
local granted = math.min(tonumber(ARGV[1]), math.floor(tokens))
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens - granted), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(capacity / rate * 1000) + 1000)
return granted
"""

log = structlog.get_logger(__name__)


class RedisTickets:
    """Tickets that expire by themselves and can be taken once (GETDEL, Redis 6.2)."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def put(self, key: str, ticket: Ticket, life_seconds: int) -> None:
        """Raises UnavailableError."""
        value = json.dumps(
            {**_caller_fields(ticket.caller), "environment_id": ticket.environment_id, "kind": ticket.kind.value}
        )
        with _telling("Tickets"):
            await self._redis.set(_ticket_key(key), value, ex=life_seconds)

    async def take(self, key: str) -> Ticket | None:
        """Raises UnavailableError."""
        with _telling("Tickets"):
            value = await self._redis.getdel(_ticket_key(key))
        if value is None:
            return None
        fields = json.loads(value)
        return Ticket(_caller_of(fields), fields["environment_id"], SocketKind(fields["kind"]))


class RedisGrants:
    """What preview cookies allow."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def put(self, key: str, grant: Grant, idle_seconds: int) -> None:
        """Raises UnavailableError."""
        value = {
            **_caller_fields(grant.caller),
            "environment_id": grant.environment_id,
            "until": grant.until.isoformat(),
        }
        with _telling("Previews"):
            await self._redis.set(_grant_key(key), json.dumps(value), ex=idle_seconds)

    async def find(self, key: str, idle_seconds: int) -> Grant | None:
        """Raises UnavailableError."""
        with _telling("Previews"):
            value = await self._redis.getex(_grant_key(key), ex=idle_seconds)
        if value is None:
            return None
        fields = json.loads(value)
        return Grant(_caller_of(fields), fields["environment_id"], datetime.fromisoformat(fields["until"]))

    async def drop(self, key: str) -> None:
        """Raises UnavailableError."""
        with _telling("Previews"):
            await self._redis.delete(_grant_key(key))


class RedisSlots:
    """Connections per user over all replicas, as many as the plan allows; with Redis away, per process.

    `limit`, if given, counts instead of the plan.
    """

    def __init__(self, redis: Redis, *, limit: int | None) -> None:
        self._redis = redis
        self._limit = limit
        self._held: dict[str, str] = {}
        self._warn = _Warning("connections are counted per process: redis cannot be reached")

    async def take(self, caller: Caller, connection_id: str) -> None:
        """Raises TooManyConnectionsError."""
        limit = self._limit or PLAN_LIMITS[caller.plan].connections
        try:
            taken = await self._take(caller.user_id, limit, connection_id)
        except UNAVAILABLE_ERRORS as error:
            self._warn(error)
            taken = Counter(self._held.values())[caller.user_id] < limit
        if not taken:
            raise TooManyConnectionsError(limit)
        self._held[connection_id] = caller.user_id

    async def release(self, user_id: str, connection_id: str) -> None:
        """With Redis away the slot expires by itself."""
        self._held.pop(connection_id, None)
        try:
            await self._redis.zrem(_slots_key(user_id), connection_id)
        except UNAVAILABLE_ERRORS as error:
            self._warn(error)

    async def refresh(self) -> None:
        """Prolong what this process holds, and put back what a restarted Redis has forgotten."""
        by_user: dict[str, list[str]] = {}
        for connection_id, user_id in self._held.items():
            by_user.setdefault(user_id, []).append(connection_id)
        for user_id, connection_ids in by_user.items():
            held = [connection_id for connection_id in connection_ids if connection_id in self._held]
            await self._take(user_id, 0, *held)

    async def _take(self, user_id: str, limit: int, *connection_ids: str) -> bool:
        arguments = [str(limit), str(_SLOT_LIFE_S), *connection_ids]
        return bool(await self._redis.eval(_TAKE, 1, _slots_key(user_id), *arguments))


class RedisAllowance:
    """Messages per user over all replicas."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._warn = _Warning("messages are counted per process: redis cannot be reached")

    async def draw(self, user_id: str, wanted: int, per_second: int, capacity: int) -> int | None:
        """Up to `wanted` messages; None when Redis cannot be reached."""
        arguments = [str(wanted), str(per_second), str(capacity)]
        try:
            return int(await self._redis.eval(_DRAW, 1, _messages_key(user_id), *arguments))
        except UNAVAILABLE_ERRORS as error:
            self._warn(error)
            return None


class _Warning:
    """Says the same at most every ten seconds."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._warned_at = float("-inf")

    def __call__(self, error: Exception) -> None:
        if time.monotonic() - self._warned_at > _WARN_EVERY_S:
            self._warned_at = time.monotonic()
            log.warning(self._text, error=repr(error))


def _ticket_key(key: str) -> str:
    return f"devpocket:ticket:{key}"


def _slots_key(user_id: str) -> str:
    return f"devpocket:connections:{user_id}"


def _messages_key(user_id: str) -> str:
    return f"devpocket:messages:{user_id}"


def _grant_key(key: str) -> str:
    return f"devpocket:preview:{key}"


def _caller_fields(caller: Caller) -> dict[str, str]:
    return {"user_id": caller.user_id, "login_id": caller.login_id, "plan": caller.plan.value}


def _caller_of(fields: Mapping[str, str]) -> Caller:
    return Caller(fields["user_id"], fields["login_id"], Plan(fields["plan"]))


@contextmanager
def _telling(what: str) -> Iterator[None]:
    try:
        yield
    except UNAVAILABLE_ERRORS as error:
        raise UnavailableError(f"{what} cannot be handled right now, please try again in a moment") from error
