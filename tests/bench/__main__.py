"""Starts a stack of its own, measures it, prints a table and writes JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from tests.bench import bus, contest, logins, measures
from tests.bench import crowd as crowds
from tests.bench.kube.measures import kube_results
from tests.bench.measures import Result
from tests.bench.stack import OwnStack, own_stack

_CALL_TIMEOUT_S = 30.0
_CROWD_ENVIRONMENTS = 5


async def measure(stack: OwnStack, only: str | None, quick: bool) -> list[Result]:
    """Everything that needs no cluster."""
    async with httpx.AsyncClient(base_url=stack.url, timeout=_CALL_TIMEOUT_S) as http:
        body = {"username_or_email": stack.email, "password": stack.password}
        token = (await http.post("/api/v1/auth/login", json=body)).raise_for_status().json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        results: list[Result] = []
        if only != "terminals":
            print("measuring create → running …", file=sys.stderr)
            results += await measures.create_to_running(http, 5 if quick else 30)
        async with measures.running_environment(http, "bench") as (environment_id, _):
            # In a thread of its own: its client blocks.
            results += await asyncio.to_thread(contest.terminal_results, stack.url, environment_id, token, quick)
            if only != "terminals":
                results += await request_results(stack.url, stack.envs_url, token, 2 if quick else 8)
        return results + await crowd(stack, http, token, quick)


async def crowd(stack: OwnStack, http: httpx.AsyncClient, token: str, quick: bool) -> list[Result]:
    """Environments enough for a thousand shells: each has a limit of processes."""
    async with AsyncExitStack() as environments:
        ids = [
            (await environments.enter_async_context(measures.running_environment(http, f"crowd-{number}")))[0]
            for number in range(_CROWD_ENVIRONMENTS)
        ]
        pid = stack.pids["terminal"]
        return await asyncio.to_thread(crowds.crowd_results, stack.url, ids, token, pid, quick)


async def request_results(url: str, envs_url: str, token: str, seconds: int) -> list[Result]:
    """Requests a second: one worker asked directly, then everything behind the gateway."""
    results: list[Result] = []
    for name, target, budget in (
        ("GET /environments, one worker", f"{envs_url}/api/v1/environments", "≥ 600"),
        ("GET /environments, gateway", f"{url}/api/v1/environments", ""),
        ("GET /auth/me, gateway", f"{url}/api/v1/auth/me", ""),
        ("GET /health, gateway", f"{url}/health", ""),
    ):
        print(f"measuring {name} …", file=sys.stderr)
        rate = await measures.requests_per_second(name, target, token, budget=budget, seconds=seconds)
        if rate is None:
            print("wrk is not installed: requests a second are left out", file=sys.stderr)
            break
        results.append(rate)
    return results


def show(results: list[Result], target: Path) -> None:
    """A table for people, JSON for machines."""
    table = Table("what", "measured", "unit", "budget", "detail", title="DevPocket bench")
    for result in results:
        table.add_row(result.what, f"{result.value:,.3g}", result.unit, result.budget, result.detail)
    Console().print(table)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps([result.as_json() for result in results], indent=2, ensure_ascii=False) + "\n")
    print(f"JSON in {target}")


def main() -> int:
    """`python -m tests.bench [--quick] [--only stack|terminals|bus|logins|kubernetes] [--json FILE]`."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    parser.add_argument("--json", type=Path, default=Path("bench-results/bench.json"), help="where the JSON goes")
    parser.add_argument(
        "--only",
        choices=("stack", "terminals", "bus", "logins", "kubernetes"),
        help="one part; terminals is one of stack, kubernetes is among them by default when KUBECONFIG is set",
    )
    options = parser.parse_args()
    # Whoever asks us to end gets what Ctrl-C gets: everything is cleaned up. A shell's background jobs ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    results: list[Result] = []
    if options.only in (None, "stack", "terminals"):
        with own_stack() as stack:
            results += asyncio.run(measure(stack, options.only, options.quick))
    if options.only in (None, "bus"):
        results += asyncio.run(bus.bus_results(options.quick))
    if options.only in (None, "logins"):
        results += asyncio.run(logins.login_results(options.quick))
    if options.only == "kubernetes" or (options.only is None and os.environ.get("KUBECONFIG")):
        results += kube_results(options.quick)
    show(results, options.json)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
