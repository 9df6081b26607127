"""Rate limits in Redis, shared by all replicas, with the fixed-window counter of the `limits` library.

Headers: `RateLimit-Limit`, `-Remaining` and `-Reset` (seconds) as in draft-ietf-httpapi-ratelimit-headers-03, which is
what clients know. With Redis away requests are let through, with a warning: being open beats being down.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from fastapi import Request
from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.common.errors import DevPocketError, ErrorKind, UnauthenticatedError, UnavailableError
from libs.common.http.address import client_address
from libs.common.http.auth import bearer_token
from libs.common.http.problems import problem_response
from libs.common.redis import UNAVAILABLE_ERRORS
from libs.common.security.tokens import TokenVerifier
from libs.common.settings import CommonSettings

_WARN_EVERY_S = 10.0
_REMEMBERED_WINDOWS = 10_000
_EXEMPT_PATHS = ("/health", "/metrics", "/api/v1/auth/.well-known/")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome for one request; `reset_s` is seconds until the window ends."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: int

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says about it."""
        headers = {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_s),
        }
        if not self.allowed:
            headers["Retry-After"] = str(max(self.reset_s, 1))
        return headers


class TooManyRequestsError(DevPocketError):
    """A limit was passed."""

    kind = ErrorKind.TOO_MANY
    code = "rate_limited"

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(
            f"Too many requests: {verdict.limit} are allowed, please wait {max(verdict.reset_s, 1)} s",
            headers=verdict.headers,
        )


class RateLimiter:
    """Counts requests by key. Limits are written as the `limits` library reads them, e.g. `100/minute`."""

    def __init__(self, settings: CommonSettings, on_refused: Callable[[str], None] = lambda _: None) -> None:
        """`on_refused` hears the first part of the key of each request that is refused: the limit's name."""
        self._on_refused = on_refused
        self._storage = RedisStorage(
            f"async+{settings.redis_url.get_secret_value()}",
            implementation="redispy",
            socket_timeout=1.0,
            socket_connect_timeout=1.0,
        )
        self._window_ends: OrderedDict[str, float] = OrderedDict()
        self._warned_at = float("-inf")

    async def check(self, limit: RateLimitItem, *key: str) -> Verdict | None:
        """Count one request; None when Redis cannot be asked."""
        name = limit.key_for(*key)
        try:
            count = await self._storage.incr(name, limit.get_expiry())
            ends_at = await self._window_end(name, first=count == 1, window_s=limit.get_expiry())
        except UNAVAILABLE_ERRORS as error:
            if time.monotonic() - self._warned_at > _WARN_EVERY_S:
                self._warned_at = time.monotonic()
                log.warning("rate limits are off: redis cannot be reached", error=repr(error))
            return None
        if count > limit.amount:
            self._on_refused(key[0])
        return Verdict(
            allowed=count <= limit.amount,
            limit=limit.amount,
            remaining=max(limit.amount - count, 0),
            reset_s=max(round(ends_at - time.time()), 0),
        )

    async def _window_end(self, name: str, *, first: bool, window_s: int) -> float:
        """Asked once per window and process, so that a request costs one round trip."""
        known = self._window_ends.get(name, 0.0)
        if not first and known > time.time():
            return known
        ends_at = time.time() + window_s if first else float(await self._storage.get_expiry(name))
        self._window_ends[name] = ends_at
        self._window_ends.move_to_end(name)
        if len(self._window_ends) > _REMEMBERED_WINDOWS:
            self._window_ends.popitem(last=False)
        return ends_at


class RateLimitMiddleware:
    """The limit for everything, per user when the token is good, else per address."""

    def __init__(self, app: ASGIApp, *, limiter: RateLimiter, tokens: TokenVerifier, limit: str) -> None:
        self.app = app
        self._limiter = limiter
        self._tokens = tokens
        self._limit = parse(limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http" or scope["path"].startswith(_EXEMPT_PATHS):
            await self.app(scope, receive, send)
            return
        verdict = await self._limiter.check(self._limit, "global", await self._client(scope))
        if verdict is None:
            await self.app(scope, receive, send)
            return
        if not verdict.allowed:
            error = TooManyRequestsError(verdict)
            request_id = scope["state"].get("request_id")
            answer = problem_response(429, error.code, error.message, request_id=request_id, headers=error.headers)
            await answer(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in verdict.headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)

    async def _client(self, scope: Scope) -> str:
        token = bearer_token(scope)
        if token is not None:
            try:
                return f"user:{(await self._tokens.verify(token)).user_id}"
            except (UnauthenticatedError, UnavailableError):
                pass
        return f"address:{client_address(scope)}"


class RouteLimit:
    """A dependency: a stricter limit for one route, per address. Its limiter lives in `app.state.platform`."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def __call__(self, request: Request) -> None:
        """Raises TooManyRequestsError."""
        platform = request.app.state.platform
        limit: str = platform.settings.rate_limit_auth
        if not limit:
            return
        verdict = await platform.limiter.check(parse(limit), self._name, client_address(request.scope))
        if verdict is not None and not verdict.allowed:
            raise TooManyRequestsError(verdict)
