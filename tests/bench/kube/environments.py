"""Environments through the API, with the moments at which each step was seen."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from libs.runtime.kubernetes.names import workspace_name
from tests.bench.kube.pods import Burst
from tests.bench.kube.watch import PodWatch

TEMPLATE = "ubuntu"
# Small, so that twenty find room in a cluster on a laptop.
RESOURCES = {"cpu": "500m", "memory": "256Mi", "storage": "1Gi"}

_CALL_TIMEOUT_S = 60.0
_STATUS_TIMEOUT_S = 300.0
_AT_A_TIME = 100


@dataclass(frozen=True)
class Single:
    """Seconds since the request: answered, pod seen, pod ready, told as running."""

    answered: float
    added: float
    ready: float
    running: float

    @property
    def pod(self) -> float:
        """What the cluster needed, from the pod's appearance to its readiness."""
        return self.ready - self.added

    @property
    def own(self) -> float:
        """What everything else took."""
        return self.running - self.pod


class Statuses:
    """When each environment was told to be in a status, from the live events of the administrator, who sees all."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[float, str | None]] = {}
        self._news = asyncio.Condition()

    async def when(self, environment_id: str, status: str) -> float:
        """`time.perf_counter` then. Raises RuntimeError for one that failed, TimeoutError."""
        wanted, failed = (environment_id, status), (environment_id, "error")
        async with asyncio.timeout(_STATUS_TIMEOUT_S), self._news:
            await self._news.wait_for(lambda: wanted in self._seen or failed in self._seen)
        if wanted not in self._seen:
            raise RuntimeError(f"environment {environment_id} failed: {self._seen[failed][1]}")
        return self._seen[wanted][0]

    async def follow(self, lines: AsyncIterator[str]) -> None:
        """Until the stream ends."""
        async for line in lines:
            if not line.startswith("data:"):
                continue
            now = time.perf_counter()
            data = json.loads(line.removeprefix("data:"))["data"]
            if "environment_id" in data and "status" in data:
                async with self._news:
                    self._seen[data["environment_id"], data["status"]] = (now, data.get("status_reason"))
                    self._news.notify_all()


class Environments:
    """Makes and deletes them; each caller is a client with somebody's token."""

    def __init__(self, watch: PodWatch, statuses: Statuses) -> None:
        self._watch = watch
        self._statuses = statuses

    async def single(self, caller: httpx.AsyncClient) -> tuple[str, Single]:
        """One, once it runs; its id and its times."""
        started = time.perf_counter()
        environment_id = await self._create(caller)
        answered = time.perf_counter()
        running = await self._statuses.when(environment_id, "running")
        pod = await self._watch.ready(workspace_name(environment_id))
        assert pod.ready is not None
        return environment_id, Single(*(moment - started for moment in (answered, pod.added, pod.ready, running)))

    async def burst(self, callers: list[httpx.AsyncClient]) -> Burst:
        """One for each caller, all at once; they are gone again when this returns."""
        started = time.perf_counter()
        ids = await asyncio.gather(*(self._create(caller) for caller in callers))
        answered = time.perf_counter()
        running = await asyncio.gather(*(self._statuses.when(each, "running") for each in ids))
        pods = await asyncio.gather(*(self._watch.ready(workspace_name(each)) for each in ids))
        await asyncio.gather(*map(self.delete, callers, ids))
        return Burst(
            answered - started,
            max(pod.added for pod in pods) - started,
            max(pod.ready or 0.0 for pod in pods) - started,
            max(running) - started,
        )

    async def delete(self, caller: httpx.AsyncClient, environment_id: str) -> None:
        """Ask for its end and wait for it."""
        (await caller.delete(f"/api/v1/environments/{environment_id}")).raise_for_status()
        await self._statuses.when(environment_id, "terminated")

    async def _create(self, caller: httpx.AsyncClient) -> str:
        body: dict[str, Any] = {"name": f"bench-{secrets.token_hex(4)}", "template": TEMPLATE, "resources": RESOURCES}
        answer = await caller.post("/api/v1/environments", json=body)
        environment_id: str = answer.raise_for_status().json()["id"]
        return environment_id


@asynccontextmanager
async def signed_in(url: str, name: str, password: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client with this user's token."""
    limits = httpx.Limits(max_connections=_AT_A_TIME, max_keepalive_connections=_AT_A_TIME)
    async with httpx.AsyncClient(base_url=url, timeout=_CALL_TIMEOUT_S, limits=limits) as http:
        body = {"username_or_email": name, "password": password}
        token = (await http.post("/api/v1/auth/login", json=body)).raise_for_status().json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        yield http


@asynccontextmanager
async def registered(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A new user of the smallest plan, signed in."""
    name, password = f"bench-{secrets.token_hex(5)}", f"Aa1-{secrets.token_urlsafe(12)}"
    async with httpx.AsyncClient(base_url=url, timeout=_CALL_TIMEOUT_S) as http:
        body = {"username": name, "email": f"{name}@example.com", "password": password}
        (await http.post("/api/v1/auth/register", json=body)).raise_for_status()
    async with signed_in(url, name, password) as user:
        yield user


@asynccontextmanager
async def live_statuses(admin: httpx.AsyncClient) -> AsyncIterator[Statuses]:
    """From now on."""
    async with admin.stream("GET", "/api/v1/events", timeout=_STATUS_TIMEOUT_S) as changes:
        lines = changes.aiter_lines()
        await anext(lines)
        statuses = Statuses()
        following = asyncio.create_task(statuses.follow(lines))
        try:
            yield statuses
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
