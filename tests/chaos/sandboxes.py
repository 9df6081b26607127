"""Which sandboxes live, by looking at the machine itself: the system's own records are what is being checked."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from pathlib import Path

from tests.chaos.ledger import DOUBLED, Ledger

_PROC = Path("/proc")
_LOOK_EVERY_S = 0.5


def living(runtime: Path) -> dict[str, dict[str, int]]:
    """For each environment with a workspace below `runtime`: its process-id namespaces, each with one of its pids.

    A sandbox is known by its namespace, and by where its /workspace comes from.
    """
    ours = os.readlink("/proc/self/ns/pid")
    known: dict[str, str | None] = {}
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for entry in _PROC.iterdir():
        namespace = _namespace(entry) if entry.name.isdigit() else None
        if namespace is None or namespace == ours:
            continue
        if namespace not in known:
            known[namespace] = _environment(entry, runtime)
        environment_id = known[namespace]
        if environment_id is not None:
            found[environment_id][namespace] = int(entry.name)
    return dict(found)


def _namespace(process: Path) -> str | None:
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return None if state in "ZX" else os.readlink(process / "ns/pid")
    except OSError:
        return None


def _environment(process: Path, runtime: Path) -> str | None:
    # The fourth field is the path within its file system, which ends like ours whatever it is mounted on.
    ending = "/".join(runtime.parts[-3:])
    try:
        for line in (process / "mountinfo").read_text().splitlines():
            _, _, _, source, target, *_ = line.split()
            if target == "/workspace" and f"/{ending}/workspaces/" in source:
                return source.split("/workspaces/")[1].split("/")[0]
    except (OSError, ValueError):
        return None
    return None


def twice(runtime: Path) -> dict[str, list[int]]:
    """Environments with more than one sandbox at one moment, with a pid of each."""
    suspects = {key: pids for key, pids in living(runtime).items() if len(pids) > 1}
    if not suspects:
        return {}
    # While /proc was being read, the first may have gone before the second came. Who is still there was there.
    still = living(runtime)
    both = {key: {name: still.get(key, {}).get(name, 0) for name in pids} for key, pids in suspects.items()}
    return {key: sorted(pids.values()) for key, pids in both.items() if sum(pid > 0 for pid in pids.values()) > 1}


async def watch(runtime: Path, ledger: Ledger) -> None:
    """Until cancelled: no environment may ever have two sandboxes at once."""
    told: set[str] = set()
    while True:
        for environment_id, pids in (await asyncio.to_thread(twice, runtime)).items():
            if environment_id not in told:
                told.add(environment_id)
                ledger.notice(DOUBLED, environment_id, f"has two sandboxes at once: pids {pids}")
        await asyncio.sleep(_LOOK_EVERY_S)
