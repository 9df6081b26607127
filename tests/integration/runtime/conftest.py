"""Sandboxes on this machine. Every test here needs bubblewrap; most need root, and say so when they are skipped."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from libs.runtime.local.isolation import IsolationPolicy
from libs.runtime.local.runtime import LocalRuntime
from libs.runtime.port import RuntimeUnavailableError
from tests.runtime_contract.workspaces import Workspaces


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """A directory outside pytest's own, which is closed to other users."""
    path = Path(tempfile.mkdtemp(prefix="devpocket-runtime-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def runtime(runtime_dir: Path) -> AsyncIterator[LocalRuntime]:
    """The driver with sandboxes required."""
    driver = LocalRuntime(runtime_dir, IsolationPolicy.REQUIRE)
    try:
        await driver.open()
    except RuntimeUnavailableError as error:
        pytest.skip(f"no sandbox can be made here: {error}")
    yield driver
    await driver.stop_all(grace_seconds=0)
    assert await driver.leftovers() == []
    await driver.close()


@pytest.fixture
async def workspaces(runtime: LocalRuntime) -> AsyncIterator[Workspaces]:
    """Workspaces of that driver, removed after the test."""
    made = Workspaces(runtime)
    yield made
    await made.remove_all()


@pytest.fixture
def as_root() -> None:
    """Skips, with the reason, where the test is not run by root."""
    if os.geteuid() != 0:
        pytest.skip("needs root: checks what a sandbox made by root looks like")
