from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from libs.runtime.local.uids import UidAllocator, _range_for
from libs.runtime.port import RuntimeUnavailableError


def test_each_environment_has_its_own_and_keeps_it(tmp_path: Path) -> None:
    first, again = UidAllocator(tmp_path), UidAllocator(tmp_path)
    uids = {name: first.acquire(name) for name in ("a", "b", "c")}
    assert len(set(uids.values())) == 3
    assert {name: again.acquire(name) for name in uids} == uids


def test_release_gives_back(tmp_path: Path) -> None:
    allocator = UidAllocator(tmp_path, range(50, 51))
    assert allocator.acquire("a") == 50
    with pytest.raises(RuntimeUnavailableError):
        allocator.acquire("b")
    allocator.release("a")
    allocator.release("a")
    assert allocator.acquire("b") == 50


def test_concurrent_use_never_shares(tmp_path: Path) -> None:
    names = [f"env-{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        uids = list(threads.map(lambda name: UidAllocator(tmp_path, range(100, 140)).acquire(name), names))
    assert sorted(uids) == list(range(100, 140))


def test_the_range_fits_the_user_namespace() -> None:
    assert _range_for("         0          0 4294967295\n")[0] == 1_900_000_000
    assert _range_for("         0     100000      65536\n")[0] == 20_000
    with pytest.raises(RuntimeUnavailableError):
        _range_for("         0       1000          1\n")
