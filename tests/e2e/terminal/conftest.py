"""An environment for terminals, and how long the long tests are."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from tests.support.app import eventually
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


async def at_rest(phone: Phone, beyond: int) -> int:
    """Until the user's only shell, having put out more than so much, puts out nothing for a second; how much it was."""
    clock = asyncio.get_running_loop().time
    offset, since = beyond, clock()

    async def rests() -> bool:
        nonlocal offset, since
        (session,) = (await phone.http.get("/api/v1/terminal/sessions")).json()
        if session["offset"] != offset:
            # It is None while the replica that has the shell is too busy to say.
            offset, since = session["offset"] or beyond, clock()
        return offset > beyond and clock() - since > 1.0

    await eventually(rests)
    return offset


def amount(name: str, usual: int) -> int:
    """How much of something a test does: TRUST_<name> of the environment, or what is usual in `make test`."""
    return int(os.environ.get(f"TRUST_{name}", usual))
