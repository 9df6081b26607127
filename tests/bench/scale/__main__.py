"""`make bench-scale`: many environments on the real services with a runtime that answers at once."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.scale.filling import fill
from tests.bench.scale.gauges import Gauges
from tests.bench.scale.ground import SERVICES, Ground, ground
from tests.bench.scale.load import Changes, Environments, Person, Registry, client, spread
from tests.bench.scale.phases import after
from tests.bench.scale.plan import Size
from tests.bench.scale.report import show, write
from tests.bench.scale.run import Findings, Growth, say, settled
from tests.support.servers import Servers

_REGISTERING = 8
_FIRST = 20


@dataclass(frozen=True)
class Wanted:
    """What the command line says."""

    size: Size
    filled: int
    minutes: float | None
    target: Path


async def run(wanted: Wanted, stage: Ground, findings: Findings) -> None:
    """Everything, on servers that run. Ctrl-C ends the creations, and what there is is counted; again, it ends all."""
    enough, stop, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()
    main_task = asyncio.current_task()
    assert main_task is not None

    def interrupted() -> None:
        if enough.is_set():
            stop.set()
            main_task.cancel()
        say("no further environments; once more ends at once")
        enough.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted)
    if wanted.minutes is not None:
        loop.call_later(wanted.minutes * 60, enough.set)
    gauges, changes = Gauges(stage), Changes()
    try:
        for service in SERVICES:
            await stage.start(service)
        findings.phases["reading_empty"] = (await gauges.read()).as_json()
        async with client() as http:
            leave = await changes.follow(stage)
            people = await _people(wanted.size, Registry(http, stage), enough)
            environments = Environments(http, stage, people, changes)
            growth = Growth(wanted.size, environments, gauges, enough)
            if wanted.filled:
                await growth.first(_FIRST)
                await settled(gauges)
                await fill(wanted.filled, growth.tally.accepted[0][0], gauges, stage)
            await growth.run(findings, lambda: write(wanted.target, wanted.size, wanted.filled, findings))
            await after(wanted.filled, growth.tally, environments, gauges, stage, findings, stop)
            findings.problems += [f"refused: {words}" for words in growth.tally.refused]
            findings.problems += [f"{growth.tally.late} never ran"] if growth.tally.late else []
            await leave()
    finally:
        await gauges.close()
        await stage.stop_all()


async def _people(size: Size, registry: Registry, enough: asyncio.Event) -> list[Person]:
    admin, people = await registry.admin(), []

    async def one(number: int) -> None:
        people.append(await registry.person(number, size.plan.value, admin))
        if not len(people) % 500:
            say(f"{len(people):,} of {size.users:,} accounts")

    began = time.perf_counter()
    await spread(iter(range(size.users)), _REGISTERING, one, enough)
    say(f"{len(people):,} accounts on the plan {size.plan.value}, {len(people) / (time.perf_counter() - began):.1f}/s")
    return people


def _parse() -> tuple[Wanted, Servers | None, dict[str, str]]:
    parser = argparse.ArgumentParser(prog="make bench-scale")
    parser.add_argument("--environments", type=int, default=100_000, help="through the API")
    parser.add_argument("--users", type=int, help="default: one for ten environments (plan pro); 100 each are admins")
    parser.add_argument("--workers", type=int, default=16, help="creations on their way at a time")
    parser.add_argument("--filled", type=int, default=0, help="further ones put straight into the databases before")
    parser.add_argument("--minutes", type=float, help="create no further ones after so long, go on with what there is")
    parser.add_argument("--resync-seconds", type=float, help="default: 30, or 1 for 100 environments if that is more")
    parser.add_argument("--usage-seconds", type=float, help="between usage samples; default: as --resync-seconds")
    parser.add_argument("--json", type=Path, default=Path("bench-results/scale.json"))
    for name in ("nats", "redis", "mongodb"):
        parser.add_argument(f"--{name}-url", help="a server of yours; give all three or none")
    options = parser.parse_args()
    size = Size(options.environments, options.users or -(-options.environments // 10), options.workers)
    given = [options.nats_url, options.redis_url, options.mongodb_url]
    if any(given) and not all(given):
        parser.error("give all three URLs or none")
    resync_s = options.resync_seconds or max(30.0, (options.environments + options.filled) / 100)
    settings = {
        "RESYNC_INTERVAL_SECONDS": str(resync_s),
        "METRICS_INTERVAL_SECONDS": str(options.usage_seconds or resync_s),
    }
    wanted = Wanted(size, options.filled, options.minutes, options.json)
    return wanted, Servers(*given) if all(given) else None, settings


def main() -> int:
    """Parse, run, write. 1 when anything was lost."""
    try:
        wanted, given, settings = _parse()
    except ValueError as error:
        sys.exit(str(error))
    findings = Findings(settings=settings)
    with (
        tempfile.TemporaryDirectory(prefix="devpocket-bench-scale-") as name,
        ground(Path(name), given, **settings) as on,
    ):
        try:
            asyncio.run(run(wanted, on, findings))
        except asyncio.CancelledError:
            findings.problems.append("interrupted")
        finally:
            write(wanted.target, wanted.size, wanted.filled, findings)
    show(findings)
    print(f"JSON in {wanted.target}")
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main())
