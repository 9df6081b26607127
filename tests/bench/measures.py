"""The measurements."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import httpx

_RUNNING_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Result:
    """One line of the table. `budget` is what the design asks for, in words."""

    what: str
    value: float
    unit: str
    budget: str = ""
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def percentile(samples: list[float], percent: int) -> float:
    """The `percent`-th percentile."""
    return statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]


async def create_to_running(http: httpx.AsyncClient, times: int) -> list[Result]:
    """From sending POST /environments to the `running` event on the live stream, one after the other."""
    samples: list[float] = []
    for number in range(times):
        async with running_environment(http, f"bench-{number}") as (_, duration_ms):
            samples.append(duration_ms)
    detail = f"{times} times, p90 {percentile(samples, 90):.0f} ms"
    return [Result("create → running, p50", statistics.median(samples), "ms", "≤ 200", detail)]


@asynccontextmanager
async def running_environment(http: httpx.AsyncClient, name: str) -> AsyncIterator[tuple[str, float]]:
    """A new environment that runs, and the milliseconds that took; deleted at the end of the block."""
    async with http.stream("GET", "/api/v1/events", timeout=_RUNNING_TIMEOUT_S) as changes:
        lines = changes.aiter_lines()
        await anext(lines)
        started = time.perf_counter()
        answer = await http.post("/api/v1/environments", json={"name": name, "template": "ubuntu"})
        environment_id: str = answer.raise_for_status().json()["id"]
        await _await_status(lines, environment_id, "running")
        yield environment_id, (time.perf_counter() - started) * 1000
        (await http.delete(f"/api/v1/environments/{environment_id}")).raise_for_status()
        await _await_status(lines, environment_id, "terminated")


async def _await_status(lines: Any, environment_id: str, wanted: str) -> None:
    async with asyncio.timeout(_RUNNING_TIMEOUT_S):
        async for line in lines:
            if line.startswith("data:"):
                data = json.loads(line.removeprefix("data:"))["data"]
                if data.get("environment_id") == environment_id and data.get("status") == wanted:
                    return
    raise RuntimeError(f"never {wanted}")


async def requests_per_second(name: str, url: str, token: str, *, budget: str, seconds: int) -> Result | None:
    """What wrk gets from `url` with 32 connections; None when wrk is not installed."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return None
    argv = [wrk, "-t1", "-c32", f"-d{seconds}s", "--latency", "-H", f"Authorization: Bearer {token}", url]
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    output = (await process.communicate())[0].decode()
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", output)
    p99 = re.search(r"99%\s+(\S+)", output)
    if rate is None or "Non-2xx" in output:
        raise RuntimeError(f"{url}: {output}")
    return Result(name, float(rate[1]), "requests/s", budget, f"p99 {p99[1] if p99 else '?'}")
