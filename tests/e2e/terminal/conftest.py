"""An environment for terminals, and how long the long tests are."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from tests.support.phone import Phone


@pytest.fixture
async def environment_id(alice: Phone) -> AsyncIterator[str]:
    """Alice's, running."""
    created = await alice.create(template="ubuntu")
    yield created
    await alice.http.delete(f"/api/v1/environments/{created}")


def amount(name: str, usual: int) -> int:
    """How much of something a test does: TRUST_<name> of the environment, or what is usual in `make test`."""
    return int(os.environ.get(f"TRUST_{name}", usual))
