"""Every service and the gateway are restarted while several clients work: nothing that was taken is lost.

In `make test` once with one replica of each; RESTART_ROUNDS=N does N rounds, with one replica and with two, by the
command and by SIGTERM to each process in turn.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psutil
import pytest

from tests.e2e.restarts.load import Load
from tests.support.app import eventually
from tests.support.stack import LocalStack

_SERVICES = ("auth", "envs", "orchestrator", "terminal")
_ROUNDS = int(os.environ.get("RESTART_ROUNDS", "0"))
_REPLICAS = [1, 2] if _ROUNDS else [1]
_RESTART_TIMEOUT_S = 240.0

log = logging.getLogger(__name__)


@pytest.fixture(scope="module", params=_REPLICAS, ids=lambda count: f"{count} of each")
def hurt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack of its own."""
    running = LocalStack(tmp_path_factory.mktemp("restarts"))
    running.up(*(part for name in _SERVICES for part in ("--scale", f"{name}={request.param}")))
    yield running
    running.down()


def services(stack: LocalStack) -> list[dict[str, Any]]:
    """Their processes."""
    return [row for row in stack.status() if row["name"].split("-")[0] in _SERVICES]


async def by_command(stack: LocalStack) -> None:
    """`devpocket restart`."""
    before = {row["name"]: row["pid"] for row in services(stack)}
    done = await asyncio.to_thread(stack.command, "restart", "--json", timeout_s=_RESTART_TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    log.info(said)
    assert [item["name"] for item in said["restarted"]] == ["gateway", *before]
    assert not [item for item in said["restarted"] if item["was_killed"]]
    after = {row["name"]: row["pid"] for row in services(stack) if row["state"] == "running"}
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())


async def by_signal(stack: LocalStack) -> None:
    """SIGTERM to each process in turn, as somebody may send it who knows nothing of the supervisor."""

    for row in services(stack):
        name, pid = row["name"], row["pid"]

        async def has_a_successor(name: str = name, pid: int = pid) -> bool:
            now = next(row for row in services(stack) if row["name"] == name)
            return now["state"] == "running" and now["pid"] != pid and not psutil.pid_exists(pid)

        os.kill(pid, signal.SIGTERM)
        await eventually(has_a_successor, 60)


async def demos_until(over: asyncio.Event, stack: LocalStack) -> int:
    """The demo, again and again; how often."""
    count = 0
    while not over.is_set():
        done = await asyncio.to_thread(stack.command, "demo", "--url", stack.url, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        count += 1
    return count


_Way = Callable[[LocalStack], Awaitable[None]]
_WAYS = [by_command, by_signal] if _ROUNDS else [by_command]


@pytest.mark.e2e
@pytest.mark.chaos
@pytest.mark.timeout(300 * (_ROUNDS or 1))
@pytest.mark.parametrize("way", _WAYS)
async def test_no_request_and_no_terminal_session_is_lost(hurt: LocalStack, way: _Way) -> None:
    load = Load(hurt.url, owners=3 if _ROUNDS else 2, typists=2 if _ROUNDS else 1)

    over = asyncio.Event()

    async def rounds() -> None:
        for _ in range(_ROUNDS or 1):
            await way(hurt)
        over.set()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(load.during(rounds))
            demos = group.create_task(demos_until(over, hurt))
    finally:
        log.warning(load)
    assert not load.ledger.lost
    assert not load.ledger.refused
    assert demos.result()
    assert all(typist.endings["1001"] for typist in load.typists)
