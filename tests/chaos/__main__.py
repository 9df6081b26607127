"""`make chaos`: users at work on a stack that is being hurt, then the question whether anything was lost or doubled."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.ledger import KINDS
from tests.chaos.run import Options, Outcome, Run, started

_SHOWN = 100


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--lifecycles", type=int, default=500, help="environments from creation to deletion")
    parser.add_argument("--users", type=int, default=20, help="how many of them at a time")
    parser.add_argument("--fault-every", type=float, default=2.0, metavar="SECONDS", help="0: no faults")
    parser.add_argument("--only", default="", metavar="REGEX", help="kinds of faults, e.g. 'kill -9' or 'nats|redis'")
    parser.add_argument("--handler-errors", type=float, default=0.03, metavar="SHARE", help="of deliveries, 0 to 1")
    parser.add_argument("--runtime", choices=("local", "kubernetes"), default="local", help="what runs the workspaces")
    parser.add_argument("--api-errors", type=float, default=0.03, metavar="SHARE", help="of the cluster's answers")
    parser.add_argument("--api-latency", type=float, default=0.02, metavar="SECONDS", help="at most, of each answer")
    parser.add_argument("--no-poison", action="store_true", help="publish nothing that nobody can handle")
    parser.add_argument("--replicas", type=int, default=2, help="of each service")
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run, to have the same faults again")
    parser.add_argument("--data-dir", type=Path, default=None, help="must not exist; default: a temporary folder")
    parser.add_argument("--keep", action="store_true", help="keep the folder (logs, streams, databases)")
    return parser.parse_args()


def show(console: Console, outcome: Outcome) -> None:
    """The counts, then one line per violation."""
    ledger = outcome.ledger
    found = {kind: sum(item.kind == kind for item in outcome.violations) for kind in KINDS}
    table = Table("what", "count", title="Counts", show_header=False)
    rows: list[tuple[str, int | str]] = [
        ("lifecycles begun", len(ledger.lives)),
        ("lifecycles finished", ledger.counts["finished"]),
        ("requests accepted", ledger.accepted),
        ("events in the stream", len(outcome.evidence.events)),
        *((f"violations: {kind}", number) for kind, number in found.items()),
        *((f"replayed: {item.service}", f"{item.handled} of {item.events} events") for item in outcome.replays),
        ("dead letters", len(outcome.evidence.dead)),
        ("poison published", len(ledger.poison)),
        *sorted((f"fault: {kind}", number) for kind, number in outcome.faults.items()),
        *((f"handler failed {when}", number) for when, number in outcome.handler_failures.items()),
        *sorted((f"client: {what}", number) for what, number in ledger.counts.items() if what != "finished"),
        *((f"seconds {part}", f"{seconds:.0f}") for part, seconds in outcome.seconds.items()),
    ]
    for what, number in rows:
        table.add_row(what, str(number))
    console.print(table)
    for violation in outcome.violations[:_SHOWN]:
        console.print(str(violation), markup=False, highlight=False, soft_wrap=True)
    if len(outcome.violations) > _SHOWN:
        console.print(f"… and {len(outcome.violations) - _SHOWN} more")


def main() -> int:
    """Exit code 1 when anything was lost, doubled, stuck, or different after a replay."""
    given = parse()
    # Ends what was started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(highlight=False)
    seed = given.seed if given.seed is not None else secrets.randbelow(1_000_000)
    console.print(f"seed {seed}: again with --seed {seed}")
    options = Options(
        seed,
        given.lifecycles,
        given.users,
        given.fault_every,
        given.handler_errors,
        given.replicas,
        with_poison=not given.no_poison,
        only=given.only,
        runtime=given.runtime,
        api_errors=given.api_errors,
        api_latency_s=given.api_latency,
    )
    data_dir = given.data_dir or Path(tempfile.mkdtemp(prefix="devpocket-chaos-")) / "data"
    try:
        with started(data_dir, options) as (stack, ground):
            console.print(f"the stack runs at {stack.url}, its data is in {data_dir}")
            outcome = asyncio.run(Run(stack, ground, options, partial(console.print, soft_wrap=True))())
            show(console, outcome)
    except BaseException:
        console.print(f"the logs are in {data_dir}")
        raise
    if outcome.violations or given.keep:
        console.print(f"logs, streams and databases are in {data_dir}")
    else:
        shutil.rmtree(data_dir)
    console.print(f"seed {seed}: {'FAILED' if outcome.violations else 'all is as it must be'}")
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
