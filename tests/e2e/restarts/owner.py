"""A user who makes, uses, stops, starts and deletes an environment, again and again, and follows it by live events."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import defaultdict
from contextlib import suppress
from typing import Any

import httpx

from tests.e2e.restarts.ledger import Ledger
from tests.support.app import eventually
from tests.support.phone import Phone

_PATIENCE_S = 60.0
_FILE_BYTES = 2_000_000


class Owner:
    """One client with one connection pool, as an app has it."""

    def __init__(self, phone: Phone, ledger: Ledger) -> None:
        self._phone = phone
        self._http = phone.http
        self._ledger = ledger
        self._last_event_id = ""
        self._environment_id = ""
        # By environment: the first news of one may come before the answer with its id.
        self._statuses: defaultdict[str, list[str]] = defaultdict(list)
        self._news = asyncio.Event()
        self._listens = asyncio.Event()
        self.rounds = 0
        self.longest_wait_s = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Whole rounds until `stop`. Raises AssertionError or TimeoutError when what was taken was not done."""
        listening = asyncio.create_task(self._listen())
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._listens.wait()
            while not stop.is_set():
                await self._round()
                self.rounds += 1
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening

    async def _round(self) -> None:
        name = f"box-{secrets.token_hex(4)}"
        created = await self._until_taken("POST", "/environments", json={"name": name, "template": "python"})
        self._environment_id = created["id"]
        await self._becomes("running")
        await self._use()
        await self._until_taken("PATCH", self._path(), json={"description": "used"})
        await self._until_taken("POST", self._path("/stop"))
        await self._becomes("stopped")
        await self._until_taken("POST", self._path("/start"))
        await self._becomes("running")
        await self._until_taken("DELETE", self._path())
        await self._becomes("terminated")

    async def _use(self) -> None:
        body = secrets.token_bytes(_FILE_BYTES)
        await self._until_taken("PUT", self._path("/files/big"), content=body)
        answer = await self._until_taken("POST", self._path("/exec"), json={"command": ["wc", "-c", "big"]})
        assert answer["stdout"].split()[0] == str(_FILE_BYTES), answer
        read = await self._ledger.call(self._http, "GET", f"/api/v1{self._path('/files/big')}")
        assert read is None or read.content == body
        for path in (self._path(), "/environments", "/regions", "/auth/me", "/templates", "/terminal/sessions"):
            await self._until_taken("GET", path)
        for _ in range(5):
            ticket = {"environment_id": self._environment_id, "kind": "terminal"}
            await self._until_taken("POST", "/ws/tickets", json=ticket)

    def _path(self, rest: str = "") -> str:
        return f"/environments/{self._environment_id}{rest}"

    async def _until_taken(self, method: str, path: str, **options: Any) -> Any:
        """Again when the answer was that it was not taken. A lost one may have been taken: 400 and 409 then say so."""
        answer: httpx.Response | None = None

        async def is_taken() -> bool:
            nonlocal answer
            answer = await self._ledger.call(self._http, method, f"/api/v1{path}", **options)
            return answer is not None

        await eventually(is_taken, _PATIENCE_S)
        assert answer is not None
        assert answer.status_code < 400, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def _becomes(self, status: str) -> None:
        """By live events alone: one that a restart has swallowed is never heard of."""
        began = time.monotonic()
        async with asyncio.timeout(_PATIENCE_S):
            while status not in self._statuses[self._environment_id]:
                self._news.clear()
                await self._news.wait()
        self._statuses[self._environment_id].clear()
        self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - began)

    async def _listen(self) -> None:
        """As an EventSource does."""
        while True:
            headers = {"Last-Event-ID": self._last_event_id} if self._last_event_id else {}
            with suppress(httpx.HTTPError):
                async with self._http.stream("GET", "/api/v1/events", headers=headers, timeout=60) as answer:
                    async for line in answer.aiter_lines():
                        # The first one is said once nothing more is missed.
                        self._listens.set()
                        self._take(line)
            await asyncio.sleep(0.2)

    def _take(self, line: str) -> None:
        if line.startswith("id: "):
            self._last_event_id = line.removeprefix("id: ")
        assert line != "event: gap"
        if line.startswith("data: "):
            data = json.loads(line.removeprefix("data: "))["data"]
            if "status" in data:
                self._statuses[data["environment_id"]].append(data["status"])
                self._news.set()
