"""What is done once all environments are there: count them, command some, start replicas again, replay the stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench.scale.gauges import Gauges
from tests.bench.scale.ground import SERVICES, Ground
from tests.bench.scale.load import Environments, Tally, spread
from tests.bench.scale.noop import SEEN_ALL
from tests.bench.scale.plan import percentiles
from tests.bench.scale.run import Findings, say, settled

_PAGE = 100
_LOOK_EVERY_S = 0.2
_RESYNC_TIMEOUT_S = 1800.0
_LISTENERS = 50


async def counted(size_filled: int, tally: Tally, environments: Environments, gauges: Gauges) -> dict[str, Any]:
    """How many there are and run: by the API, page by page, and in each service's database."""
    statuses: Counter[str] = Counter()
    pages_ms: list[float] = []

    async def one(owner: int) -> None:
        found, took_ms = await environments.listed(owner, _PAGE)
        statuses.update(found)
        pages_ms.extend(took_ms)

    await spread(iter(range(len(environments.people))), 8, one, asyncio.Event())
    running = {
        "envs": await gauges.collection("envs", "environments").count_documents({"status": "running"}),
        "orchestrator": await gauges.collection("orchestrator", "workspaces").count_documents(
            {"observed.said": "running"}
        ),
        "terminal": await gauges.collection("terminal", "environments").count_documents({"status": "running"}),
    }
    return {
        "accepted": len(tally.accepted),
        "filled": size_filled,
        "listed": dict(statuses),
        "running_in": running,
        "pages_ms": percentiles(pages_ms),
        "pages": len(pages_ms),
    }


def lost(count: dict[str, Any], expected: int, unsure: int = 0) -> list[str]:
    """What is missing or too much, in words. `unsure`: requests that were answered 5xx, which may have been done."""
    listed, filled = count["listed"].get("running", 0), count["filled"]
    found = []
    if not expected <= listed <= expected + unsure:
        found.append(f"the API lists {listed} running, {expected} were accepted, and maybe {unsure} more")
    for service, number in count["running_in"].items():
        if number != listed + filled:
            found.append(f"{service} knows {number} running, {listed + filled} should be")
    return found


async def commanded(tally: Tally, environments: Environments, share: float, stop: asyncio.Event) -> dict[str, Any]:
    """A share is stopped and started, half as many are deleted, while some owners listen to live events."""
    step = max(round(1 / share), 1)
    some = tally.accepted[::step]
    gone = tally.accepted[step // 2 :: 2 * step]
    took: dict[str, list[float]] = {"stop": [], "start": [], "delete": []}

    async def stop_and_start(number: int) -> None:
        environment_id, owner = some[number]
        took["stop"].append(await environments.command(environment_id, owner, "stop", "stopped"))
        took["start"].append(await environments.command(environment_id, owner, "start", "running"))

    async def delete(number: int) -> None:
        environment_id, owner = gone[number]
        took["delete"].append(await environments.command(environment_id, owner, "delete", "terminated"))
        tally.accepted.remove((environment_id, owner))

    owners = {owner for _, owner in [*some, *gone]}
    async with _listening(environments, sorted(owners)[:_LISTENERS]) as heard:
        await spread(iter(range(len(some))), 8, stop_and_start, stop)
        await spread(iter(range(len(gone))), 8, delete, stop)
    return {
        **{f"{name}_ms": [*percentiles(samples), len(samples)] for name, samples in took.items()},
        "sse_clients": min(len(owners), _LISTENERS),
        "sse_events": sum(heard.values()),
    }


@contextlib.asynccontextmanager
async def _listening(environments: Environments, owners: list[int]) -> AsyncIterator[Counter[int]]:
    heard: Counter[int] = Counter()
    url = environments.url.replace("/environments", "/events")

    async def listen(owner: int) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        async with environments.http.get(url, headers=environments.people[owner].headers, timeout=timeout) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                heard[owner] += line.startswith(b"data:")

    tasks = [asyncio.create_task(listen(owner)) for owner in owners]
    await asyncio.sleep(1.0)
    try:
        yield heard
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def restarted(ground: Ground) -> dict[str, float]:
    """Each service stopped and started again; seconds until it was ready, and until all was compared with the runtime.

    The orchestrator looks at every environment when it starts: that is one resync of everything.
    """
    took = {}
    for service in SERVICES:
        await ground.stop(service)
        seen_all = ground.folder / SEEN_ALL
        seen_all.unlink(missing_ok=True)
        began = time.perf_counter()
        took[service] = await ground.start(service)
        say(f"{service} is ready again after {took[service]:.1f} s")
        if service == "orchestrator":
            async with asyncio.timeout(_RESYNC_TIMEOUT_S):
                while not seen_all.exists():  # noqa: ASYNC110 - another process makes it
                    await asyncio.sleep(_LOOK_EVERY_S)
            took["resync"] = time.perf_counter() - began
            say(f"everything compared with the runtime after {took['resync']:.1f} s")
    return took


async def replayed(ground: Ground, service: str) -> dict[str, Any]:
    """A service's read models rebuilt from the whole stream, beside the live ones."""
    argv = [str(Path(sys.executable).with_name("devpocket")), "events", "replay", "--service", service, "--json"]
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *argv, env={**os.environ, **ground.settings}, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    took_s = time.perf_counter() - began
    report = json.loads(output)
    say(f"{service} replayed: {report['events']:,} events in {took_s:.0f} s")
    return {"events": report["events"], "failed": report["failed"], "seconds": took_s}


async def after(
    filled: int,
    tally: Tally,
    environments: Environments,
    gauges: Gauges,
    ground: Ground,
    findings: Findings,
    stop: asyncio.Event,
) -> None:
    """All of it."""
    found = findings.phases
    found["drained_s"] = await settled(gauges)
    found["documents"], found["disk_bytes"] = await gauges.documents(), gauges.disk_bytes()
    found["reading"] = (await gauges.read()).as_json()
    found["count"] = await counted(filled, tally, environments, gauges)
    findings.problems += lost(found["count"], len(tally.accepted), tally.unsure)
    say(f"counted: {found['count']['listed']} by the API, {found['count']['running_in']} in the databases")
    found["restarted_s"] = await restarted(ground)
    found["reading_after_restart"] = (await gauges.read()).as_json()
    found["commands"] = await commanded(tally, environments, 0.02, stop)
    say(f"commands: {found['commands']}")
    await settled(gauges)
    found["count_after"] = await counted(filled, tally, environments, gauges)
    findings.problems += lost(found["count_after"], len(tally.accepted), tally.unsure)
    dead = await gauges.dead_letters()
    findings.problems += [f"{dead} dead letters"] if dead else []
    found["replay"] = {service: await replayed(ground, service) for service in ("terminal", "envs")}
