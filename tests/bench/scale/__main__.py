"""`make bench-scale`: many environments on the real services with a runtime that answers at once."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.scale.gauges import Gauges
from tests.bench.scale.ground import SERVICES, Ground, ground
from tests.bench.scale.load import Changes, Environments, Person, Registry, client, spread
from tests.bench.scale.plan import Size
from tests.bench.scale.run import Findings, Growth, restarted, say, settled

_REGISTERING = 8


async def run(size: Size, stage: Ground, findings: Findings) -> None:
    """Everything, on servers that run."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    for service in SERVICES:
        await stage.start(service)
    gauges, changes = Gauges(stage), Changes()
    try:
        async with client() as http:
            leave = await changes.follow(stage)
            people = await _people(size, Registry(http, stage), stop)
            environments = Environments(http, stage, people, changes)
            growth = Growth(size, environments, gauges, stop)
            await growth.run(findings)
            findings.phases["drained_s"] = await settled(gauges)
            findings.phases["documents"] = await gauges.documents()
            findings.phases["disk_bytes"] = gauges.disk_bytes()
            findings.phases["restarted_s"] = await restarted(stage)
            await leave()
    finally:
        await gauges.close()
        await stage.stop_all()


async def _people(size: Size, registry: Registry, stop: asyncio.Event) -> list[Person]:
    admin, people = await registry.admin(), []

    async def one(number: int) -> None:
        people.append(await registry.person(number, size.plan.value, admin))

    began = time.perf_counter()
    await spread(iter(range(size.users)), _REGISTERING, one, stop)
    say(f"{len(people):,} accounts on the plan {size.plan.value}, {len(people) / (time.perf_counter() - began):.1f}/s")
    return people


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(prog="make bench-scale")
    parser.add_argument("--environments", type=int, default=100_000)
    parser.add_argument("--users", type=int, help="by default one for ten environments")
    parser.add_argument("--workers", type=int, default=16, help="creations on their way at a time")
    parser.add_argument("--json", type=Path, default=Path("bench-results/scale.json"))
    options = parser.parse_args()
    size = Size(options.environments, options.users or -(-options.environments // 10), options.workers)
    findings = Findings()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="devpocket-bench-scale-") as folder, ground(Path(folder), None) as stage:
        asyncio.run(run(size, stage, findings))
    document: dict[str, Any] = {"milestones": findings.milestones, "phases": findings.phases}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document["phases"], indent=1))
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main())
