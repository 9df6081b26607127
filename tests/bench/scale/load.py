"""Accounts and environments by the API, and when each environment runs, as the stream says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import nats
from nats.aio.msg import Msg

from tests.bench.scale.ground import ADMIN_EMAIL, Ground

_PASSWORD = "Correct-Horse-1"
_CALL_TIMEOUT_S = 60.0
_RUNNING_TIMEOUT_S = 120.0
_CHANGES = "devpocket.env.*.status_changed"


@dataclass(frozen=True)
class Person:
    """An account with a token."""

    user_id: str
    headers: dict[str, str]


@contextlib.asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """aiohttp, because it takes a quarter of httpx's time: what measures runs on the cores that are measured."""
    timeout = aiohttp.ClientTimeout(total=_CALL_TIMEOUT_S)
    # The services close a connection that was idle for 5 s; one must not be used again just then.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        yield http


class Registry:
    """Makes accounts: registered, put on a plan by the administrator, signed in."""

    def __init__(self, http: aiohttp.ClientSession, ground: Ground) -> None:
        self._http = http
        self._url = f"{ground.urls['auth']}/api/v1"
        self._admin_password = ground.admin_password

    async def admin(self) -> Person:
        """The administrator that auth made at its start."""
        return await self._signed_in("", ADMIN_EMAIL, self._admin_password)

    async def person(self, number: int, plan: str, admin: Person) -> Person:
        """One more account."""
        name = f"bench{number:06}"
        body = {"username": name, "email": f"{name}@example.com", "password": _PASSWORD}
        async with self._http.post(f"{self._url}/auth/register", json=body) as answer:
            user_id = (await _json(answer))["id"]
        if plan != "free":
            change = {"subscription_plan": plan}
            async with self._http.patch(f"{self._url}/users/{user_id}", json=change, headers=admin.headers) as answer:
                await _json(answer)
        return await self._signed_in(user_id, name, _PASSWORD)

    async def _signed_in(self, user_id: str, name: str, password: str) -> Person:
        body = {"username_or_email": name, "password": password}
        async with self._http.post(f"{self._url}/auth/login", json=body) as answer:
            token = (await _json(answer))["access_token"]
        return Person(user_id, {"Authorization": f"Bearer {token}"})


class Changes:
    """What envs tells on the bus of the status of environments: who waits for one hears of it."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], asyncio.Future[float]] = {}
        # Told before anybody could wait, because the answer to the request was still on its way.
        self._early: dict[tuple[str, str], float] = {}
        self.seen: Counter[str] = Counter()

    async def follow(self, ground: Ground) -> Callable[[], Any]:
        """Begin; returns what ends it."""
        bus = await nats.connect(ground.servers.nats_url, pending_size=32 * 1024 * 1024)
        await bus.subscribe(_CHANGES, cb=self._on_change)
        return bus.close

    async def until(self, environment_id: str, status: str) -> float:
        """When it was told (perf_counter). Raises TimeoutError."""
        key = (environment_id, status)
        early = self._early.pop(key, None)
        if early is not None:
            return early
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting[key] = future
        try:
            async with asyncio.timeout(_RUNNING_TIMEOUT_S):
                return await future
        finally:
            del self._waiting[key]

    async def _on_change(self, message: Msg) -> None:
        data = json.loads(message.data)["data"]
        key = (data["environment_id"], data["status"])
        self.seen[key[1]] += 1
        future = self._waiting.get(key)
        if future is None:
            if key[1] in {"running", "stopped", "terminated"}:
                self._early[key] = time.perf_counter()
        elif not future.done():
            future.set_result(time.perf_counter())


@dataclass
class Tally:
    """What was accepted, and how long each took from the request to the answer, and to `running`, in milliseconds."""

    accepted: list[tuple[str, int]] = field(default_factory=list)
    answered_ms: list[float] = field(default_factory=list)
    running_ms: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    unsure: int = 0
    late: int = 0


class Environments:
    """Creates and commands environments."""

    def __init__(self, http: aiohttp.ClientSession, ground: Ground, people: list[Person], changes: Changes) -> None:
        self.http = http
        self.url = f"{ground.urls['envs']}/api/v1/environments"
        self.people = people
        self._changes = changes

    async def create(self, number: int, tally: Tally) -> None:
        """The `number`-th environment: by turns for each person. Returns when it runs."""
        owner = number % len(self.people)
        body = {"name": f"e{number // len(self.people):04}", "template": "ubuntu"}
        began = time.perf_counter()
        async with self.http.post(self.url, json=body, headers=self.people[owner].headers) as answer:
            if answer.status != 201:
                tally.refused[f"{answer.status}: {(await answer.text())[:80]}"] += 1
                tally.unsure += answer.status >= 500
                return
            environment_id = (await answer.json())["id"]
        tally.answered_ms.append((time.perf_counter() - began) * 1000)
        tally.accepted.append((environment_id, owner))
        try:
            ended = await self._changes.until(environment_id, "running")
            tally.running_ms.append((ended - began) * 1000)
        except TimeoutError:
            tally.late += 1

    async def command(self, environment_id: str, owner: int, command: str, status: str) -> float:
        """start, stop or delete; the milliseconds until `status`. Raises RuntimeError, TimeoutError."""
        headers, began = self.people[owner].headers, time.perf_counter()
        method, url = ("DELETE", "") if command == "delete" else ("POST", f"/{command}")
        async with self.http.request(method, f"{self.url}/{environment_id}{url}", headers=headers) as answer:
            await _json(answer)
        return (await self._changes.until(environment_id, status) - began) * 1000

    async def listed(self, owner: int, limit: int) -> tuple[list[str], list[float]]:
        """Statuses of all of a person's environments, page by page, and the milliseconds of each page."""
        url: str | None = f"{self.url}?limit={limit}"
        statuses: list[str] = []
        took_ms: list[float] = []
        while url is not None:
            began = time.perf_counter()
            async with self.http.get(url, headers=self.people[owner].headers) as answer:
                statuses += [item["status"] for item in await _json(answer)]
                following = answer.links.get("next")
            took_ms.append((time.perf_counter() - began) * 1000)
            url = str(following["url"]) if following else None
        return statuses, took_ms


async def spread(numbers: Iterator[int], workers: int, work: Callable[[int], Any], stop: asyncio.Event) -> None:
    """`work` on each, so many at a time, until `stop` is set."""

    async def one() -> None:
        for number in numbers:
            if stop.is_set():
                return
            await work(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(one())


async def _json(answer: aiohttp.ClientResponse) -> Any:
    if answer.status >= 400:
        raise RuntimeError(f"{answer.method} {answer.url}: {answer.status} {(await answer.text())[:200]}")
    return await answer.json()
