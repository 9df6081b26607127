"""Every request of a load, and what became of it."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import httpx

# What a client may get for a request that was not taken.
_NOT_TAKEN = frozenset({502, 503})


class Ledger:
    """Counts answers; keeps what should not have been."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        # Clear words that a request was not taken: a problem that says when to come again.
        self.refused: list[str] = []
        # Anything else that is no answer of the API: nobody can know what became of these.
        self.lost: list[str] = []
        self.longest_s = 0.0
        self.longest = ""

    async def call(self, http: httpx.AsyncClient, method: str, path: str, **options: Any) -> httpx.Response | None:
        """The answer, or None when there was none of the API."""
        began = time.monotonic()
        name = f"{method} {path}"
        try:
            answer = await http.request(method, path, **options)
        except httpx.HTTPError as error:
            self.lost.append(f"{name}: {error!r} after {time.monotonic() - began:.2f} s")
            return None
        self.count(name, time.monotonic() - began)
        self.answers[answer.status_code] += 1
        if answer.status_code < 500:
            return answer
        clear = answer.status_code in _NOT_TAKEN and "Retry-After" in answer.headers
        is_problem = answer.headers.get("content-type", "").startswith("application/problem+json")
        kind = self.refused if clear and is_problem else self.lost
        kind.append(f"{name}: {answer.status_code} {answer.text[:200]}")
        return None

    def count(self, name: str, seconds: float) -> None:
        """How long something took."""
        if seconds > self.longest_s:
            self.longest_s, self.longest = seconds, name

    def __str__(self) -> str:
        return (
            f"{self.answers.total()} answers {dict(self.answers)}, {len(self.refused)} refused, {len(self.lost)} lost, "
            f"longest {self.longest_s:.2f} s ({self.longest})"
        )
