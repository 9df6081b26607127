"""How much a running workspace uses. Blocking code: the driver calls it in threads."""

from __future__ import annotations

import os
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from libs.runtime.local.cgroups import Cgroups, Usage
from libs.runtime.local.environment import CLEAN_ENVIRONMENT
from libs.runtime.local.members import members_of
from libs.runtime.local.records import RunRecord
from libs.runtime.port import WorkspaceStats

_NANOSECONDS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_STORAGE_CACHE_SECONDS = 15.0
_STORAGE_TIMEOUT_SECONDS = 10.0


class StatsReader:
    """Takes samples; remembers the one before for each workspace, so that CPU is a rate."""

    def __init__(self, groups: Cgroups | None) -> None:
        self._groups = groups
        self._cpu: dict[str, tuple[int, float, int]] = {}
        self._storage: dict[str, tuple[float, int]] = {}

    def sample(self, environment_id: str, run: RunRecord, workspace: Path) -> WorkspaceStats:
        """One sample now."""
        usage = self._usage(environment_id, run)
        now = time.time()
        start, before, cpu_before = run.init_start, run.started_at, 0
        last = self._cpu.get(environment_id)
        if last is not None and last[0] == start:
            _, before, cpu_before = last
        self._cpu[environment_id] = (start, now, usage.cpu_nanoseconds)
        elapsed = max(now - before, 1e-3)
        # Processes that ended take their time with them where there is no cgroup: a rate is never below zero.
        cpu_millis = max(0, usage.cpu_nanoseconds - cpu_before) / elapsed / 1e6
        return WorkspaceStats(
            cpu_millis=round(cpu_millis, 3),
            memory_bytes=usage.memory_bytes,
            storage_bytes=self._storage_bytes(environment_id, workspace),
            sampled_at=datetime.fromtimestamp(now, UTC),
        )

    def forget(self, environment_id: str) -> None:
        """Drop what is remembered of a workspace."""
        self._cpu.pop(environment_id, None)
        self._storage.pop(environment_id, None)

    def _usage(self, environment_id: str, run: RunRecord) -> Usage:
        if self._groups is not None and run.cgroups:
            try:
                return self._groups.usage(run.cgroups)
            except OSError:
                pass  # the group went with its sandbox, or was removed by hand
        with members_of(environment_id, run) as members:
            processes = members.all()
        return Usage(
            sum(info.cpu_ticks for info in processes) * _NANOSECONDS_PER_TICK,
            sum(info.rss_bytes for info in processes),
        )

    def _storage_bytes(self, environment_id: str, workspace: Path) -> int:
        at, size = self._storage.get(environment_id, (float("-inf"), 0))
        if time.monotonic() - at > _STORAGE_CACHE_SECONDS:
            size = _disk_usage(workspace, size)
            self._storage[environment_id] = (time.monotonic(), size)
        return size


def _disk_usage(path: Path, otherwise: int) -> int:
    """Bytes on disk. du stands any depth, odd name and changing tree, and keeps this process responsive."""
    command = ["du", "--summarize", "--one-file-system", "--block-size=1", "--", str(path)]
    try:
        done = subprocess.run(
            command,
            env=dict(CLEAN_ENVIRONMENT),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_STORAGE_TIMEOUT_SECONDS,
            check=False,
        )
        return int(done.stdout.split()[0])
    except (OSError, subprocess.TimeoutExpired, IndexError, ValueError):
        return otherwise
