"""What a storm of logins costs everybody else: GET /auth/me, asked of one auth process directly, without and with it.

Both arrive at a fixed rate, however long the answers take, as they would from many phones.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import aiohttp

from tests.bench.measures import Result, percentile
from tests.bench.stack import service_process
from tests.support.servers import local_servers

_LOGINS_PER_S = 50
_PROFILES_PER_S = 50
_PEOPLE = 10
_PASSWORD = "Correct-Horse-1"
# As in production, whatever the defaults become.
_HASH_COST = 12

T = TypeVar("T")


async def login_results(quick: bool) -> list[Result]:
    """Everything, on servers and a process of its own."""
    settings = {"PASSWORD_HASH_COST": str(_HASH_COST), "RATE_LIMIT_GLOBAL": "", "RATE_LIMIT_AUTH": ""}
    with tempfile.TemporaryDirectory(prefix="devpocket-bench-logins-") as name:
        folder = Path(name)
        with local_servers(folder) as servers:
            async with service_process("services.auth.main:create_app", servers, folder, **settings) as url:
                return await _measure(f"{url}/api/v1/auth", 4 if quick else 20)


async def _measure(url: str, seconds: int) -> list[Result]:
    # aiohttp, because it takes a quarter of httpx's time: what measures runs on the cores that are measured.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2)) as http:
        people = [f"bench{number}" for number in range(_PEOPLE)]
        for person in people:
            body = {"username": person, "email": f"{person}@example.com", "password": _PASSWORD}
            async with http.post(f"{url}/register", json=body) as answer:
                answer.raise_for_status()
        async with http.post(f"{url}/login", json=_credentials(people[0])) as answer:
            answer.raise_for_status()
            headers = {"Authorization": f"Bearer {(await answer.json())['access_token']}"}

        async def profile(_: int) -> float:
            """Milliseconds that it took."""
            started = time.perf_counter()
            async with http.get(f"{url}/me", headers=headers) as answer:
                answer.raise_for_status()
                await answer.read()
            return (time.perf_counter() - started) * 1000

        async def login(number: int) -> int:
            """The status."""
            async with http.post(f"{url}/login", json=_credentials(people[number % _PEOPLE])) as answer:
                await answer.read()
                return answer.status

        print("measuring GET /auth/me without logins …", file=sys.stderr)
        idle = await _arriving(_PROFILES_PER_S, seconds, profile)
        print(f"measuring GET /auth/me while {_LOGINS_PER_S} logins/s arrive …", file=sys.stderr)
        storm = asyncio.create_task(_arriving(_LOGINS_PER_S, seconds, login))
        busy = await _arriving(_PROFILES_PER_S, seconds, profile)
        codes = Counter(await storm)
    answers = ", ".join(f"{count} x {code}" for code, count in sorted(codes.items()))
    return [
        _result("GET /auth/me p99, idle", idle),
        _result(f"GET /auth/me p99, while {_LOGINS_PER_S} logins/s arrive", busy, f"; logins: {answers}"),
    ]


def _result(what: str, samples: list[float], detail: str = "") -> Result:
    return Result(what, percentile(samples, 99), "ms", detail=f"p50 {statistics.median(samples):.1f} ms{detail}")


async def _arriving(per_second: int, seconds: int, call: Callable[[int], Awaitable[T]]) -> list[T]:
    """The results of `call(number)`, begun at this rate."""
    started = time.perf_counter()

    async def one(number: int) -> T:
        await asyncio.sleep(started + number / per_second - time.perf_counter())
        return await call(number)

    return await asyncio.gather(*(one(number) for number in range(per_second * seconds)))


def _credentials(person: str) -> dict[str, str]:
    return {"username_or_email": person, "password": _PASSWORD}
