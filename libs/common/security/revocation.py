"""Sessions that are dead before their tokens expire.

Every process holds the set in memory, because looking it up must cost nothing. It learns of a revocation in three ways:

- at once, over a Redis channel. Each process confirms what it heard, and `store` waits for them: when a logout is
  answered, no process accepts the session any more. A process that hangs delays the answer by CONFIRM_WITHIN_S at most.
- from the event `devpocket.user.<id>.sessions_revoked`: it carries them while Redis is away. `revocation_feed` hears it
  as it comes, and reads back from the stream what this process cannot have heard.
- from a sorted set in Redis (session id by expiry), read at start, after every reconnect and every REFRESH_INTERVAL_S.
  What is missing there, because Redis was away or has lost it, is put back by whoever knows it.

So a dead session comes back to life nowhere for longer than REFRESH_INTERVAL_S while Redis works. While Redis and NATS
are both away a token of a revoked session is accepted no longer than its own life (ACCESS_TOKEN_EXPIRE_MINUTES).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from redis.asyncio import Redis

from libs.common.contracts.events import Event
from libs.common.contracts.users import UserSessionsRevoked
from libs.common.ids import new_id
from libs.common.redis import UNAVAILABLE_ERRORS
from libs.common.tasks import end_tasks

REFRESH_INTERVAL_S = 5.0
CONFIRM_WITHIN_S = 0.8
SUBJECT = "devpocket.user.*.sessions_revoked"
_KEY = "devpocket:revoked_sessions"
_CHANNEL = "devpocket:revocations"
_CONFIRMATIONS = "devpocket:revocation_confirmed:"
_CONFIRMATIONS_LIVE_S = 10
_CANCEL_AGAIN_S = 0.1
_LISTEN_AGAIN_S = 0.5

log = structlog.get_logger(__name__)


class Revocations:
    """The dead sessions, as this process knows them. `token_life_s`: how long a revocation matters, in seconds.

    `confirm_within_s`: what other processes get to confirm one.
    """

    def __init__(self, redis: Redis, *, token_life_s: float, confirm_within_s: float = CONFIRM_WITHIN_S) -> None:
        self._redis = redis
        self._token_life_s = token_life_s
        self._confirm_within_s = confirm_within_s
        self._dead: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []
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
        self._remember(dict.fromkeys(session_ids, until))

    def _remember(self, expiries: Mapping[str, float]) -> None:
        for session_id, until in expiries.items():
            if session_id not in self._dead:
                self._dead[session_id] = until
                for listener in self._listeners:
                    listener(session_id)

    async def store(self, session_ids: Iterable[str]) -> None:
        """Remember here and in Redis, and return once every process has confirmed, or the time for that is over.

        With Redis away the event alone carries the revocation.
        """
        ids = list(session_ids)
        if not ids:
            return
        self.add(ids)
        until = time.time() + self._token_life_s
        try:
            await self._redis.zadd(_KEY, dict.fromkeys(ids, until))
            await self._redis.zremrangebyscore(_KEY, "-inf", time.time())
            await self._announce(ids)
        except UNAVAILABLE_ERRORS as error:
            log.warning("revocation not stored in redis, carried by the event only", error=repr(error))

    async def _announce(self, session_ids: list[str]) -> None:
        announcement = new_id()
        listening = await self._redis.publish(_CHANNEL, json.dumps({"id": announcement, "sessions": session_ids}))
        try:
            async with asyncio.timeout(self._confirm_within_s):
                for _ in range(listening):
                    await self._redis.blpop([_CONFIRMATIONS + announcement], timeout=self._confirm_within_s)
        except TimeoutError:
            log.warning("a process has not confirmed a revocation in time", listening=listening)

    async def load(self) -> None:
        """Read what Redis knows, tell it what it does not, forget what has expired.

        Raises one of libs.common.redis.UNAVAILABLE_ERRORS.
        """
        now = time.time()
        # With their own expiry: one that every reader extended would never end.
        pairs: Any = await self._redis.zrangebyscore(_KEY, now, "+inf", withscores=True)
        stored = {str(session_id): float(until) for session_id, until in pairs}
        self._remember(stored)
        for session_id in [known for known, until in self._dead.items() if until < now]:
            del self._dead[session_id]
        missing = {known: until for known, until in self._dead.items() if known not in stored}
        if missing:
            await self._redis.zadd(_KEY, missing, nx=True)

    def on_message(self, payload: bytes) -> None:
        """A `sessions_revoked` event, raw from the stream or a subscription; anything else is ignored.

        It may come late: no token is younger than the event, so its own time says how long it matters.
        """
        try:
            event = Event.model_validate(json.loads(payload))
            data = event.payload()
            # A clock that is ahead must not make it matter for ever.
            until = min(event.time.timestamp(), time.time()) + self._token_life_s
        except (ValueError, OverflowError, RecursionError) as error:
            log.warning("revocation event ignored", error=str(error))
            return
        if isinstance(data, UserSessionsRevoked):
            self._remember(dict.fromkeys(data.session_ids, until))

    async def start(self) -> None:
        """Keep the set fresh until `stop`."""
        self._tasks = [asyncio.create_task(self._refresh_forever()), asyncio.create_task(self._listen_forever())]

    async def stop(self) -> None:
        """Stop listening and refreshing."""
        stopping, self._tasks = self._tasks, []
        # Soon: a cancellation that comes just as the Redis client's own time-out begins or ends is lost.
        await end_tasks(stopping, again_after_s=_CANCEL_AGAIN_S)

    async def _refresh_forever(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_INTERVAL_S)
            try:
                await self.load()
            except UNAVAILABLE_ERRORS as error:
                log.warning("revocations not refreshed from redis", error=repr(error))

    async def _listen_forever(self) -> None:
        while True:
            try:
                await self._listen()
            except UNAVAILABLE_ERRORS as error:
                log.warning("revocations not heard from redis", error=repr(error))
            await asyncio.sleep(_LISTEN_AGAIN_S)

    async def _listen(self) -> None:
        async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(_CHANNEL)
            # What was announced while nobody listened here.
            await self.load()
            while True:
                message = await channel.get_message(timeout=REFRESH_INTERVAL_S)
                if message is not None:
                    await self._heard(message["data"])

    async def _heard(self, text: str) -> None:
        announcement = json.loads(text)
        self.add(announcement["sessions"])
        confirmations = _CONFIRMATIONS + announcement["id"]
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.rpush(confirmations, 1)
            pipe.expire(confirmations, _CONFIRMATIONS_LIVE_S)
            await pipe.execute()
