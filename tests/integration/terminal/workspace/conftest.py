"""One workspace on each runtime for all tests here; every test has a folder of its own in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from libs.common.ids import new_id
from tests.integration.terminal.workspace.harness import Desk, desk_on
from tests.support.servers import Servers


@pytest.fixture(scope="package", params=["local", "kubernetes"])
async def desk(request: pytest.FixtureRequest, backend: Servers) -> AsyncIterator[Desk]:
    """A user with a running workspace."""
    # Without upkeep: it would look in this workspace for shells that replicas of other tests have left in theirs.
    settings = {"read_model_grace_seconds": 0.1, "terminal_upkeep_seconds": 3600.0}
    async with desk_on(request.param, backend, **settings) as desk:
        yield desk


@pytest.fixture
async def http(desk: Desk) -> AsyncIterator[httpx.AsyncClient]:
    """As that user."""
    async with desk.client() as client:
        yield client


@pytest.fixture
def place() -> str:
    """A folder of the test's own."""
    return f"t-{new_id()[-12:]}"
