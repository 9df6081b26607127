"""The phases of a run, in order. What they find is collected in `Findings`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.bench.scale.gauges import Gauges, Reading
from tests.bench.scale.load import Environments, Tally, spread
from tests.bench.scale.plan import Size, percentiles, steps

_ALONE = 30
_LOOK_EVERY_S = 0.5
_SETTLE_TIMEOUT_S = 1800.0
_SAY_EVERY_S = 10.0


@dataclass
class Findings:
    """What goes into the JSON."""

    milestones: list[dict[str, Any]] = field(default_factory=list)
    phases: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)


def say(text: str) -> None:
    """Progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Growth:
    """Creates all environments, and reads everything at each milestone."""

    def __init__(self, size: Size, environments: Environments, gauges: Gauges, enough: asyncio.Event) -> None:
        self._size = size
        self._environments = environments
        self._gauges = gauges
        self._enough = enough
        self.tally = Tally()
        self._begin = 0

    async def run(self, findings: Findings, keep: Callable[[], None]) -> None:
        """All of it, or as far as it got until `enough`; `keep` is called when there is something new."""
        for numbers in steps(self._size.milestones()):
            if self._enough.is_set():
                return
            left = range(max(numbers.start, self._begin), numbers.stop)
            findings.milestones.append(await self._step(left))
            keep()

    async def first(self, count: int) -> None:
        """A few, before anything is measured; they come again in no step."""
        self._begin = count
        await spread(iter(range(count)), self._size.workers, self._create, self._enough)

    async def _step(self, numbers: range) -> dict[str, Any]:
        before, tally = await self._gauges.read(), self.tally
        tally.answered_ms.clear()
        tally.running_ms.clear()
        # The last ones come one after the other, with nothing else going on.
        alone = min(_ALONE, len(numbers) // 2)
        began, accepted = time.perf_counter(), len(tally.accepted)
        together = iter(numbers[:-alone])
        progress = asyncio.create_task(self._tell(began, accepted))
        try:
            await spread(together, self._size.workers, self._create, self._enough)
        finally:
            progress.cancel()
        took_s = time.perf_counter() - began
        created = len(tally.accepted) - accepted
        after = await self._gauges.read()
        await settled(self._gauges)
        idle = await self._idle_cpu()
        many_ms, answered_ms = list(tally.running_ms), list(tally.answered_ms)
        tally.running_ms.clear()
        # Also when it is enough: a few that say how long one takes at this size.
        await spread(iter(numbers[-alone:]), 1, self._create, asyncio.Event())
        found = {
            "environments": len(tally.accepted),
            "creates_per_s": created / took_s,
            "post_ms": percentiles(answered_ms),
            "running_ms": percentiles(many_ms),
            "running_alone_ms": percentiles(tally.running_ms),
            "list_ms": percentiles(await self._list_ms()),
            "cpu_ms_each": _each(before, after, created),
            "idle_cpu_share": idle,
            "resident_mb": {name: size / 1e6 for name, size in after.resident.items()},
            "events_each": (after.stream_events - before.stream_events) / max(created, 1),
        }
        say(_line(found))
        return found

    async def _create(self, number: int) -> None:
        await self._environments.create(number, self.tally)

    async def _list_ms(self) -> list[float]:
        people = range(min(50, len(self._environments.people)))
        return [took for owner in people for took in (await self._environments.listed(owner, 50))[1]]

    async def _idle_cpu(self) -> dict[str, float]:
        """Share of a core that each process takes while nobody asks for anything: sweeps, scans and samples."""
        before, began = await self._gauges.read(), time.perf_counter()
        await asyncio.sleep(5.0)
        after, took_s = await self._gauges.read(), time.perf_counter() - began
        return {name: (after.cpu_s[name] - before.cpu_s[name]) / took_s for name in after.cpu_s}

    async def _tell(self, began: float, accepted: int) -> None:
        while True:
            await asyncio.sleep(_SAY_EVERY_S)
            done = len(self.tally.accepted)
            rate = (done - accepted) / (time.perf_counter() - began)
            say(f"{done:,} of {self._size.environments:,} environments, {rate:.1f}/s")


async def settled(gauges: Gauges) -> float:
    """Until every consumer has handled everything and every outbox is empty; the seconds it took."""
    began = time.perf_counter()
    async with asyncio.timeout(_SETTLE_TIMEOUT_S):
        while any((await gauges.lag()).values()) or await gauges.unpublished():  # noqa: ASYNC110 - other processes
            await asyncio.sleep(_LOOK_EVERY_S)
    return time.perf_counter() - began


def _each(before: Reading, after: Reading, count: int) -> dict[str, float]:
    return {name: (after.cpu_s[name] - before.cpu_s[name]) * 1000 / max(count, 1) for name in after.cpu_s}


def _line(found: dict[str, Any]) -> str:
    return (
        f"{found['environments']:,}: {found['creates_per_s']:.1f}/s, "
        f"running p50 {found['running_ms'][0]:.0f} ms p99 {found['running_ms'][1]:.0f} ms, "
        f"alone p50 {found['running_alone_ms'][0]:.0f} ms p99 {found['running_alone_ms'][1]:.0f} ms, "
        f"list p50 {found['list_ms'][0]:.1f} ms, CPU ms each {sum(found['cpu_ms_each'].values()):.1f}, "
        f"idle {sum(found['idle_cpu_share'].values()):.2f} cores"
    )
