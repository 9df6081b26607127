"""Limits and usage by control groups: version 2 where it is delegated to us, else version 1, else nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from libs.runtime.port import WorkspaceLimits

MAX_PROCESSES = 512
_PERIOD_MICROSECONDS = 100_000


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time since the cgroup was made, in nanoseconds; memory in bytes, without reclaimable file cache."""

    cpu_nanoseconds: int
    memory_bytes: int


class Cgroups(Protocol):
    """One version's way to limit a sandbox."""

    kind: Literal["v1", "v2"]

    def directories(self, name: str) -> list[str]:
        """Where the group of this name is, whether it exists or not."""
        ...

    def create(self, name: str, limits: WorkspaceLimits) -> list[str]:
        """Make a fresh group with these limits; gives its directories. What ran in an old one ends. Raises OSError."""
        ...

    def out_of_memory(self, directories: list[str]) -> dict[str, Any]:
        """What the shim needs to notice out-of-memory kills."""
        ...

    def usage(self, directories: list[str]) -> Usage:
        """Usage now. Raises OSError when the group is gone."""
        ...


class CgroupsV1:
    """One directory per controller."""

    kind: Literal["v1", "v2"] = "v1"
    controllers = ("memory", "cpu", "cpuacct", "pids")

    def __init__(self, roots: dict[str, Path]) -> None:
        self._roots = roots

    def directories(self, name: str) -> list[str]:
        # Controllers that are mounted together share one directory.
        return list(dict.fromkeys(str(root / name) for root in self._roots.values()))

    def create(self, name: str, limits: WorkspaceLimits) -> list[str]:
        by_controller = {controller: root / name for controller, root in self._roots.items()}
        directories = self.directories(name)
        destroy(directories)
        for directory in directories:
            os.mkdir(directory)
        (by_controller["memory"] / "memory.limit_in_bytes").write_text(str(limits.memory_bytes))
        with contextlib.suppress(OSError):  # only where swap is accounted
            (by_controller["memory"] / "memory.memsw.limit_in_bytes").write_text(str(limits.memory_bytes))
        (by_controller["cpu"] / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
        quota = max(1000, limits.cpu_millis * _PERIOD_MICROSECONDS // 1000)
        (by_controller["cpu"] / "cpu.cfs_quota_us").write_text(str(quota))
        (by_controller["pids"] / "pids.max").write_text(str(MAX_PROCESSES))
        return directories

    def out_of_memory(self, directories: list[str]) -> dict[str, Any]:
        memory = _holding(directories, "memory.oom_control")
        return {
            "kind": "v1",
            "counter": str(memory / "memory.oom_control"),
            "event_control": str(memory / "cgroup.event_control"),
        }

    def usage(self, directories: list[str]) -> Usage:
        memory = _holding(directories, "memory.usage_in_bytes")
        cache = _field(memory / "memory.stat", "total_inactive_file")
        used = int((memory / "memory.usage_in_bytes").read_text())
        cpu = int((_holding(directories, "cpuacct.usage") / "cpuacct.usage").read_text())
        return Usage(cpu, max(0, used - cache))


class CgroupsV2:
    """One directory for all controllers."""

    kind: Literal["v1", "v2"] = "v2"
    controllers = ("memory", "cpu", "pids")

    def __init__(self, root: Path) -> None:
        self._root = root

    def directories(self, name: str) -> list[str]:
        return [str(self._root / name)]

    def create(self, name: str, limits: WorkspaceLimits) -> list[str]:
        group = self._root / name
        destroy([str(group)])
        group.mkdir()
        (group / "memory.max").write_text(str(limits.memory_bytes))
        with contextlib.suppress(OSError):  # only where swap is accounted
            (group / "memory.swap.max").write_text("0")
        quota = max(1000, limits.cpu_millis * _PERIOD_MICROSECONDS // 1000)
        (group / "cpu.max").write_text(f"{quota} {_PERIOD_MICROSECONDS}")
        (group / "pids.max").write_text(str(MAX_PROCESSES))
        return [str(group)]

    def out_of_memory(self, directories: list[str]) -> dict[str, Any]:
        return {"kind": "v2", "counter": f"{directories[0]}/memory.events"}

    def usage(self, directories: list[str]) -> Usage:
        group = Path(directories[0])
        used = int((group / "memory.current").read_text())
        cache = _field(group / "memory.stat", "inactive_file")
        return Usage(_field(group / "cpu.stat", "usage_usec") * 1000, max(0, used - cache))


def detect(mounts: str | None = None) -> Cgroups | None:
    """The cgroups that this process may make groups in, or None. `mounts` is the text of /proc/self/mountinfo."""
    text = mounts if mounts is not None else Path("/proc/self/mountinfo").read_text()
    unified, legacy = _hierarchies(text)
    if unified is not None and _delegated(unified) and _can_make(CgroupsV2(unified)):
        return CgroupsV2(unified)
    roots = {name: legacy[name] for name in CgroupsV1.controllers if name in legacy}
    if len(roots) == len(CgroupsV1.controllers) and _can_make(CgroupsV1(roots)):
        return CgroupsV1(roots)
    return None


def _hierarchies(mounts: str) -> tuple[Path | None, dict[str, Path]]:
    unified: Path | None = None
    legacy: dict[str, Path] = {}
    for line in mounts.splitlines():
        # proc(5): … mount point is the fifth field; after " - ": file system, source, its options.
        left, _, right = line.partition(" - ")
        path, system, options = Path(left.split()[4]), right.split()[0], right.split()[-1].split(",")
        if system == "cgroup2":
            unified = path
        elif system == "cgroup":
            legacy.update({name: path for name in CgroupsV1.controllers if name in options})
    return unified, legacy


def _delegated(root: Path) -> bool:
    """Whether groups below `root` get all controllers; asks for those that are merely available."""
    try:
        wanted = set(CgroupsV2.controllers) - set((root / "cgroup.subtree_control").read_text().split())
        if wanted:
            (root / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(wanted)))
    except OSError:
        return False
    return True


def _can_make(groups: Cgroups) -> bool:
    probe = WorkspaceLimits(cpu_millis=1000, memory_bytes=64 << 20, storage_bytes=0)
    try:
        destroy(groups.create(f"devpocket-probe-{os.getpid()}", probe))
    except OSError:
        return False
    return True


def destroy(directories: list[str], *, timeout_seconds: float = 3.0) -> None:
    """End every process in these groups and remove them; fine when they do not exist."""
    deadline = time.monotonic() + timeout_seconds
    for directory in directories:
        while os.path.isdir(directory):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                break
            except OSError:
                if time.monotonic() >= deadline:
                    break
                _kill_members(directory)
                time.sleep(0.005)


def _kill_members(directory: str) -> None:
    with contextlib.suppress(OSError):
        for pid in Path(directory, "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _holding(directories: list[str], name: str) -> Path:
    for directory in directories:
        if os.path.exists(os.path.join(directory, name)):
            return Path(directory)
    raise FileNotFoundError(name)


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
