"""One street on each runtime for all tests here."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.terminal.preview.harness import Owner, Street, street_on
from tests.support.servers import Servers


@pytest.fixture(scope="package", params=["local", "kubernetes"])
async def street(request: pytest.FixtureRequest, backend: Servers) -> AsyncIterator[Street]:
    """Two users next to each other."""
    changes = {"read_model_grace_seconds": 0.1, "preview_requests_per_user": 8}
    async with street_on(request.param, backend, **changes) as street:
        yield street


@pytest.fixture
def alice(street: Street) -> Owner:
    return street.alice


@pytest.fixture
def bob(street: Street) -> Owner:
    return street.bob
