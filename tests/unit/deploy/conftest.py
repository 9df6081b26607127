"""Each overlay in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.deploy.manifests import OVERLAYS, Release
from tests.unit.deploy.scripts import Cluster


@pytest.fixture(params=OVERLAYS)
def release(request: pytest.FixtureRequest) -> Release:
    """An overlay, built."""
    return Release(request.param)


@pytest.fixture
def production() -> Release:
    """The overlay of that name."""
    return Release("production")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """A cluster without anything in it, behind the command line of kubectl."""
    return Cluster(tmp_path)
