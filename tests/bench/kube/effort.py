"""What processes of the stack spend on it: unlike times, this hardly depends on what else runs on the machine."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

# Below this, others leave us alone.
_QUIET_LOAD_PER_CORE = 0.5


class Effort:
    """CPU milliseconds by process, summed over the blocks that were measured."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._spent: Counter[str] = Counter()
        self._blocks = 0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count what is spent in this block."""
        before = self._now()
        yield
        self._blocks += 1
        for name, now in self._now().items():
            self._spent[name] += now - before[name]

    @property
    def per_block(self) -> dict[str, float]:
        """Milliseconds, the largest first."""
        return {name: spent / self._blocks for name, spent in self._spent.most_common()}

    def _now(self) -> Counter[str]:
        times = {name: process.cpu_times() for name, process in self._processes.items()}
        return Counter({name: round((each.user + each.system) * 1000) for name, each in times.items()})


def warn_if_busy() -> None:
    """Say so when somebody else is at work here: times are then not worth much."""
    load = os.getloadavg()[0]
    if load > _QUIET_LOAD_PER_CORE * (os.cpu_count() or 1):
        print(f"something else is running here (load {load:.1f}): measure again when it is quiet", file=sys.stderr)
