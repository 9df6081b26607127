"""An environment for terminals, and how long the long tests are."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from tests.support.phone import Phone
from tests.support.stack import LocalStack


@pytest.fixture
async def environment_id(alice: Phone) -> AsyncIterator[str]:
    """Alice's, running."""
    created = await alice.create(template="ubuntu")
    yield created
    await alice.http.delete(f"/api/v1/environments/{created}")


@pytest.fixture
def at_replicas(stack: LocalStack, alice: Phone) -> tuple[Phone, Phone]:
    """Alice as she speaks to the one replica, and to the other: the gateway would choose for her."""
    ports = [row["port"] for row in stack.status() if row["name"].startswith("terminal")]
    one, other = (Phone(f"http://127.0.0.1:{port}", alice.http, alice.token, alice.account) for port in ports)
    return one, other


def amount(name: str, usual: int) -> int:
    """How much of something a test does: TRUST_<name> of the environment, or what is usual in `make test`."""
    return int(os.environ.get(f"TRUST_{name}", usual))
