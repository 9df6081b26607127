"""Which workspaces live, by looking at the machine itself: the system's own records are what is being checked."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

_PROC = Path("/proc")
# So many last parts of a folder's path tell it from others.
_TELLING = 3

Living = dict[str, dict[str, int]]
"""By environment: its process-id namespaces, each with one of its pids."""


def living(environment_of: Callable[[Path], str | None]) -> Living:
    """`environment_of` tells from a process (its folder below /proc) whose it is; None: of no workspace of the run."""
    ours = os.readlink("/proc/self/ns/pid")
    known: dict[str, str | None] = {}
    found: Living = defaultdict(dict)
    for entry in _PROC.iterdir():
        namespace = _namespace(entry) if entry.name.isdigit() else None
        if namespace is None or namespace == ours:
            continue
        if namespace not in known:
            known[namespace] = environment_of(entry)
        environment_id = known[namespace]
        if environment_id is not None:
            found[environment_id][namespace] = int(entry.name)
    return dict(found)


def twice(look: Callable[[], Living]) -> dict[str, list[int]]:
    """Environments with more than one namespace at one moment, with a pid of each."""
    suspects = {key: pids for key, pids in look().items() if len(pids) > 1}
    if not suspects:
        return {}
    # While /proc was being read, the first may have gone before the second came. Who is still there was there.
    still = look()
    both = {key: {name: still.get(key, {}).get(name, 0) for name in pids} for key, pids in suspects.items()}
    return {key: sorted(filter(None, pids.values())) for key, pids in both.items() if sum(map(bool, pids.values())) > 1}


def mounted_at(process: Path, target: str) -> str | None:
    """What a process sees at `target`: the path within its file system."""
    try:
        for line in (process / "mountinfo").read_text().splitlines():
            _, _, _, source, place, *_ = line.split()
            if place == target:
                return source
    except (OSError, ValueError):
        return None
    return None


def below(source: str | None, folder: Path) -> str | None:
    """What comes after `folder` in a path within a file system, wherever that is mounted; None when it is not below."""
    ours, theirs = folder.parts[1:], tuple((source or "").strip("/").split("/"))
    for length in range(_TELLING, len(theirs)):
        common = min(length, len(ours))
        # One of them may begin higher up.
        if theirs[length - common : length] == ours[-common:]:
            return "/".join(theirs[length:])
    return None


def _namespace(process: Path) -> str | None:
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return None if state in "ZX" else os.readlink(process / "ns/pid")
    except OSError:
        return None
