"""One running stack of stand-ins for all tests that only use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.stack.harness import RunningStack, running


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Ready, with two replicas of terminal."""
    with running(tmp_path_factory.mktemp("stack") / "data", "--scale", "terminal=2") as started:
        yield started
