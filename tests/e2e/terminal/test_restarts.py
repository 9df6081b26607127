"""The same stream while the terminal service itself is restarted again and again."""

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

log = logging.getLogger(__name__)


@pytest.fixture
def hurt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack of its own."""
    running = LocalStack(tmp_path_factory.mktemp("hurt"))
    running.up()
    yield running
    running.down()


@pytest.mark.chaos
@pytest.mark.timeout(300)
@pytest.mark.skip(reason="a shell does not outlive its service yet")
async def test_a_stream_survives_restarts_of_the_service(hurt: LocalStack) -> None:
    cuts, restarts = amount("CUTS", 200), amount("RESTARTS", 10)
    async with signed_in(hurt.url) as phone:
        environment_id = await phone.create(template="ubuntu")
        stream = KnownStream(3, amount("STREAM_MB", 50) * 1_000_000)
        terminal = TornTerminal(phone.address(environment_id), stream, cuts=cuts, seed=amount("SEED", 7))
        killed: list[int] = []

        async def restart(number: int) -> None:
            if number % (cuts // restarts) == 0:
                await eventually(is_back)
                killed.append(hurt.pid_of("terminal"))
                os.kill(killed[-1], signal.SIGKILL if len(killed) % 2 else signal.SIGTERM)

        async def is_back() -> bool:
            row = next(row for row in hurt.status() if row["name"] == "terminal")
            return row["state"] == "running" and row["pid"] not in {None, *killed}

        log.info(await terminal.run(restart))
        assert len(killed) == restarts
        assert await phone.run(environment_id, "echo $((6*7))") == "0|42"
