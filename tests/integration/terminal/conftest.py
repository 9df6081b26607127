"""One replica for each test module; every test has users and environments of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.terminal.harness import Service, running_service
from tests.support.servers import Servers


@pytest.fixture(scope="module")
async def service(backend: Servers) -> AsyncIterator[Service]:
    """A replica with the default limits."""
    async with running_service(backend) as service:
        yield service
