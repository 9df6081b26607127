"""The public keys that access tokens are checked with, fetched from auth's JWKS endpoint (RFC 7517)."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol

import httpx
import structlog
from jwt import PyJWK

from libs.common.errors import UnavailableError

# Keys rotate with overlap, so a copy this old still holds every key in use.
_FRESH_FOR_S = 300.0
# An unknown kid may be a new key, or garbage: garbage must not turn into a request each.
_MIN_REFETCH_INTERVAL_S = 5.0
_TIMEOUT_S = 3.0

log = structlog.get_logger(__name__)


class KeySource(Protocol):
    """Finds the public key of a token."""

    async def get(self, kid: str) -> Any | None:
        """A key object for PyJWT, or None for an unknown `kid`. Raises UnavailableError."""
        ...


class JwksClient:
    """Keeps auth's keys; fetches again when they are old or a `kid` is unknown.

    `urls`: one, or several with commas between; the first replica of auth that answers is enough.
    """

    def __init__(self, urls: str, http: httpx.AsyncClient | None = None) -> None:
        self._urls = [url.strip() for url in urls.split(",")]
        self._http = http or httpx.AsyncClient(timeout=_TIMEOUT_S)
        self._keys: dict[str, Any] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._lock = asyncio.Lock()

    async def get(self, kid: str) -> Any | None:
        """The key, from memory where possible. Raises UnavailableError when there is no copy and auth is away."""
        if kid in self._keys and time.monotonic() - self._fetched_at < _FRESH_FOR_S:
            return self._keys[kid]
        async with self._lock:
            now = time.monotonic()
            stale = now - self._fetched_at >= _FRESH_FOR_S
            if (stale or kid not in self._keys) and now - self._tried_at >= _MIN_REFETCH_INTERVAL_S:
                self._tried_at = now
                await self._fetch()
        if not self._keys:
            self._tried_at = float("-inf")
            raise UnavailableError("Sign-in keys cannot be loaded right now, please try again in a moment")
        return self._keys.get(kid)

    async def probe(self) -> None:
        """Load the keys once. Raises UnavailableError."""
        if not self._keys:
            await self._fetch()
        if not self._keys:
            raise UnavailableError(f"no signing keys from {', '.join(self._urls)}")

    async def close(self) -> None:
        """Close connections."""
        await self._http.aclose()

    async def _fetch(self) -> None:
        for url in self._urls:
            try:
                response = await self._http.get(url)
                response.raise_for_status()
                keys = {item["kid"]: PyJWK(item).key for item in response.json()["keys"]}
            except (httpx.HTTPError, ValueError, KeyError) as error:
                log.warning("signing keys not fetched", url=url, error=repr(error))
            else:
                self._keys = keys
                self._fetched_at = time.monotonic()
                return
