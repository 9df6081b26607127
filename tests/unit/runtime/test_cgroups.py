"""Cgroups on plain directories: what is written where. tests/integration/runtime/test_limits.py has the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.runtime.local.cgroups import MAX_PROCESSES, CgroupsV1, CgroupsV2, Usage, _hierarchies, destroy
from libs.runtime.port import WorkspaceLimits

LIMITS = WorkspaceLimits(cpu_millis=1500, memory_bytes=512 << 20, storage_bytes=1)


def test_version_2_writes_its_limits(tmp_path: Path) -> None:
    groups = CgroupsV2(tmp_path)
    assert groups.create("g", LIMITS) == groups.directories("g") == [str(tmp_path / "g")]
    written = {path.name: path.read_text() for path in (tmp_path / "g").iterdir()}
    assert written == {
        "memory.max": str(512 << 20),
        "memory.swap.max": "0",
        "cpu.max": "150000 100000",
        "pids.max": str(MAX_PROCESSES),
    }


def test_version_2_usage_leaves_out_the_cache(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 10\ninactive_file 300\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 2500\nuser_usec 1\n")
    assert CgroupsV2(tmp_path).usage([str(tmp_path)]) == Usage(cpu_nanoseconds=2_500_000, memory_bytes=700)


def test_version_1_writes_its_limits_for_each_controller(tmp_path: Path) -> None:
    roots = {name: tmp_path / name for name in ("memory", "cpuacct", "pids")} | {"cpu": tmp_path / "cpuacct"}
    for root in roots.values():
        root.mkdir(exist_ok=True)
    directories = CgroupsV1(roots).create("g", LIMITS)
    assert sorted(directories) == [str(tmp_path / name / "g") for name in ("cpuacct", "memory", "pids")]
    assert (tmp_path / "memory/g/memory.limit_in_bytes").read_text() == str(512 << 20)
    assert (tmp_path / "cpuacct/g/cpu.cfs_quota_us").read_text() == "150000"
    assert (tmp_path / "pids/g/pids.max").read_text() == str(MAX_PROCESSES)


def test_version_1_usage(tmp_path: Path) -> None:
    (tmp_path / "memory.usage_in_bytes").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("cache 9\ntotal_inactive_file 400\n")
    (tmp_path / "cpuacct.usage").write_text("77\n")
    assert CgroupsV1({}).usage(["/nowhere", str(tmp_path)]) == Usage(77, 600)
    with pytest.raises(FileNotFoundError):
        CgroupsV1({}).usage(["/nowhere"])


def test_mounts_are_read() -> None:
    mounts = (
        "30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro\n"
        "31 30 0:27 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
        "32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    )
    unified, legacy = _hierarchies(mounts)
    assert unified == Path("/sys/fs/cgroup/unified")
    assert legacy == {
        "memory": Path("/sys/fs/cgroup/memory"),
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "cpuacct": Path("/sys/fs/cgroup/cpu,cpuacct"),
    }


def test_destroying_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    destroy([str(tmp_path / "g"), str(tmp_path / "missing")])
    assert list(tmp_path.iterdir()) == []
