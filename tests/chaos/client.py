"""A client that expects servers to die: it asks again until it knows, and it knows what it does not know."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

# Longer than any pause of a process, and than the gateway's own patience: no request of ours is ever left behind that
# takes effect after we have moved on.
_CALL_TIMEOUT_S = 75.0
# How long a service may be unreachable before that is a violation of its own.
_PATIENCE_S = 240.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0
_TRY_AGAIN = {429, 500, 502, 503, 504}


class GaveUpError(Exception):
    """No definite answer within the patience."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A definite answer. `attempts` are the ids of all requests made for it; those before the last may have worked."""

    status: int
    body: Any
    attempts: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether it was accepted."""
        return self.status < 300

    @property
    def code(self) -> str:
        """The problem's code, empty for a success."""
        return str(self.body.get("code", "")) if isinstance(self.body, dict) else ""


class Client:
    """One user's connection to the gateway. `count` hears of every failed attempt by what it was."""

    def __init__(self, url: str, name: str, count: Callable[[str], None]) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=_CALL_TIMEOUT_S)
        self._name = name
        self._count = count
        self._numbers = itertools.count(1)

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    @property
    def http(self) -> httpx.AsyncClient:
        """For those who speak to it directly."""
        return self._http

    def authorize(self, token: str) -> None:
        """Send this token from now on."""
        self._http.headers["Authorization"] = f"Bearer {token}"

    async def once(self, method: str, path: str, body: Any = None) -> Answer | str:
        """One attempt: an answer, or the id of a request of which nobody knows whether it took effect."""
        request_id = f"chaos-{self._name}-{next(self._numbers)}"
        try:
            response = await self._http.request(method, path, json=body, headers={"X-Request-ID": request_id})
        except httpx.TransportError as error:
            self._count(f"no answer: {type(error).__name__}")
            return request_id
        if response.status_code in _TRY_AGAIN:
            self._count(f"answered {response.status_code}")
            return request_id
        return Answer(response.status_code, _body(response), (request_id,))

    async def call(self, method: str, path: str, body: Any = None) -> Answer:
        """Ask until there is a definite answer; for requests that may be repeated. Raises GaveUpError."""
        attempts: list[str] = []
        pauses = Pauses()
        while True:
            result = await self.once(method, path, body)
            if isinstance(result, Answer):
                return Answer(result.status, result.body, (*attempts, *result.attempts))
            attempts.append(result)
            await pauses.next(f"{method} {path}")


class Pauses:
    """Between attempts: longer each time, and not for ever."""

    def __init__(self, patience_s: float = _PATIENCE_S) -> None:
        self._deadline = time.monotonic() + patience_s
        self._pause_s = _FIRST_PAUSE_S

    async def next(self, what: str) -> None:
        """Raises GaveUpError when the patience has ended."""
        if time.monotonic() > self._deadline:
            raise GaveUpError(f"no answer to {what}")
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 1.5, _LONGEST_PAUSE_S)


def _body(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
