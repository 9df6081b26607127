"""Sessions that are dead before their tokens expire.

Every process holds the set in memory, because looking it up must cost nothing. It learns of a revocation in two ways:
at once from the event `devpocket.user.<id>.sessions_revoked` (a plain subscription, so that every replica gets it), and
from a sorted set in Redis (session id by expiry), read at start and every REFRESH_INTERVAL_S. So a revocation is
known everywhere within milliseconds while NATS works, within REFRESH_INTERVAL_S while only Redis works, and while both
are away a token of a revoked session is accepted no longer than its own life (ACCESS_TOKEN_EXPIRE_MINUTES).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable

import structlog
from redis.asyncio import Redis

from libs.common.contracts.events import Event, UserSessionsRevoked
from libs.common.redis import UNAVAILABLE_ERRORS

REFRESH_INTERVAL_S = 5.0
SUBJECT = "devpocket.user.*.sessions_revoked"
_KEY = "devpocket:revoked_sessions"

log = structlog.get_logger(__name__)


class Revocations:
    """The dead sessions, as this process knows them. `token_life_s`: how long a revocation matters, in seconds."""

    def __init__(self, redis: Redis, *, token_life_s: float) -> None:
        self._redis = redis
        self._token_life_s = token_life_s
        self._dead: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[str], None]] = []

    def is_revoked(self, session_id: str) -> bool:
        """Whether tokens of this session are dead."""
        return session_id in self._dead

    def on_revoked(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with every session id that dies from now on, e.g. to close its sockets."""
        self._listeners.append(listener)

    def add(self, session_ids: Iterable[str]) -> None:
        """Remember in this process."""
        until = time.time() + self._token_life_s
        for session_id in session_ids:
            if session_id not in self._dead:
                self._dead[session_id] = until
                for listener in self._listeners:
                    listener(session_id)

    async def store(self, session_ids: Iterable[str]) -> None:
        """Remember here and in Redis, for processes that start later. With Redis away the event alone carries it."""
        ids = list(session_ids)
        self.add(ids)
        until = time.time() + self._token_life_s
        try:
            await self._redis.zadd(_KEY, dict.fromkeys(ids, until))
            await self._redis.zremrangebyscore(_KEY, "-inf", time.time())
        except UNAVAILABLE_ERRORS as error:
            log.warning("revocation not stored in redis, carried by the event only", error=repr(error))

    async def load(self) -> None:
        """Read what Redis knows and forget what has expired. Raises one of libs.common.redis.UNAVAILABLE_ERRORS."""
        now = time.time()
        stored = await self._redis.zrangebyscore(_KEY, now, "+inf")
        self.add(str(session_id) for session_id in stored)
        for session_id in [known for known, until in self._dead.items() if until < now]:
            del self._dead[session_id]

    def on_message(self, payload: bytes) -> None:
        """A `sessions_revoked` event, raw from the subscription; anything else is ignored."""
        try:
            data = Event.model_validate(json.loads(payload)).payload()
        except ValueError as error:
            log.warning("revocation event ignored", error=str(error))
            return
        if isinstance(data, UserSessionsRevoked):
            self.add(data.session_ids)

    async def start(self) -> None:
        """Keep the set fresh until `stop`."""
        self._task = asyncio.create_task(self._refresh_forever())

    async def stop(self) -> None:
        """Stop refreshing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _refresh_forever(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_INTERVAL_S)
            try:
                await self.load()
            except UNAVAILABLE_ERRORS as error:
                log.warning("revocations not refreshed from redis", error=repr(error))
