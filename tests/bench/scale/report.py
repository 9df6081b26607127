"""A table for people, JSON for machines."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.scale.plan import Size, growth
from tests.bench.scale.run import Findings


def write(target: Path, size: Size, filled: int, findings: Findings) -> None:
    """What is known by now."""
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "asked": {**asdict(size), "plan": size.plan.value, "filled": filled},
        **asdict(findings),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def show(findings: Findings) -> None:
    """The milestones, what each process took, and what is wrong."""
    console = Console()
    table = Table(*("environments", "creates/s", "POST → running p50/p99 ms", "alone p50/p99 ms", "GET list p50 ms"))
    table.add_column("CPU ms each")
    table.add_column("idle cores")
    table.title = "DevPocket bench-scale"
    for found in findings.milestones:
        table.add_row(
            f"{found['environments']:,}",
            f"{found['creates_per_s']:.1f}",
            "{:.0f} / {:.0f}".format(*found["running_ms"]),
            "{:.0f} / {:.0f}".format(*found["running_alone_ms"]),
            f"{found['list_ms'][0]:.1f}",
            f"{sum(found['cpu_ms_each'].values()):.1f}",
            f"{sum(found['idle_cpu_share'].values()):.2f}",
        )
    console.print(table)
    if len(findings.milestones) > 1:
        first, last = findings.milestones[0], findings.milestones[-1]
        for name in last["cpu_ms_each"]:
            before, now = first["cpu_ms_each"][name], last["cpu_ms_each"][name]
            text = f"{name}: {now:.1f} CPU ms each (x{growth(before, now):.1f} of the first), "
            console.print(f"{text}{last['resident_mb'][name]:.0f} MB resident")
    for name, value in findings.phases.items():
        if name in {"restarted_s", "commands", "count_after", "replay", "drained_s"}:
            console.print(f"{name}: {value}")
    for problem in findings.problems:
        console.print(f"PROBLEM: {problem}", style="red")
