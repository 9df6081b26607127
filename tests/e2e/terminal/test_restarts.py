"""The same stream while the terminal service itself is restarted again and again.

TRUST_RESTARTS says how often, and so how many cuts and how long a stream there are if TRUST_CUTS and TRUST_STREAM_MB do
not say otherwise.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.terminal.conftest import amount
from tests.support.app import eventually
from tests.support.phone import signed_in
from tests.support.stack import LocalStack
from tests.support.torn_terminal import KnownStream, TornTerminal

# Once by SIGKILL and once by SIGTERM.
_OF_EACH_REPLICA = 2
_CUTS_EACH = 20
_MB_EACH = 5

log = logging.getLogger(__name__)


@pytest.fixture(params=[1, 2], ids=["alone", "two replicas"])
def hurt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack of its own, with so many replicas of the terminal service."""
    running = LocalStack(tmp_path_factory.mktemp("hurt"))
    running.up("--scale", f"terminal={request.param}")
    yield running
    running.down()


def replicas(stack: LocalStack) -> dict[str, int]:
    """Those of the terminal service that run, by name, with their pids."""
    rows = [row for row in stack.status() if row["name"].startswith("terminal")]
    return {row["name"]: row["pid"] for row in rows if row["state"] == "running" and row["pid"]}


@pytest.mark.chaos
async def test_a_stream_survives_restarts_of_the_service(hurt: LocalStack) -> None:
    """By SIGTERM and SIGKILL in turn; each replica in turn, once all are back."""
    names = sorted(replicas(hurt))
    restarts = amount("RESTARTS", _OF_EACH_REPLICA * len(names))
    cuts, megabytes = amount("CUTS", restarts * _CUTS_EACH), amount("STREAM_MB", restarts * _MB_EACH)
    killed: list[int] = []

    async def are_back() -> bool:
        running = replicas(hurt)
        return sorted(running) == names and not set(running.values()) & set(killed)

    async def restart(number: int) -> None:
        if number % (cuts // restarts) == 0:
            await eventually(are_back, 60)
            killed.append(replicas(hurt)[names[len(killed) // 2 % len(names)]])
            os.kill(killed[-1], signal.SIGKILL if len(killed) % 2 else signal.SIGTERM)

    async with signed_in(hurt.url) as phone:
        environment_id = await phone.create(template="ubuntu")
        stream = KnownStream(3, megabytes * 1_000_000)
        terminal = TornTerminal(phone.address(environment_id), stream, cuts=cuts, seed=amount("SEED", 7))
        log.info(await terminal.run(restart))
        assert len(killed) == restarts
        await eventually(are_back, 60)
        assert await phone.run(environment_id, "echo $((6*7))") == "0|42"
