"""Backup while users are at work, wipe, restore: it is all back, and every service agrees with the history."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest

from libs.cli.stack.state import load_stack
from libs.common.contracts.events import EnvironmentStatusChanged, EnvironmentWish
from libs.common.history.reader import StreamReader
from libs.common.history.recorded import Recorded
from libs.common.messaging.streams import EVENTS_STREAM, EVENTS_SUBJECTS
from tests.chaos.drift import replays
from tests.e2e.conftest import ADMIN_EMAIL, ADMIN_PASSWORD
from tests.support.app import eventually
from tests.support.phone import Phone, log_in, signed_in
from tests.support.stack import LocalStack

# How many users create and delete meanwhile; more in a longer run by hand.
_BUSY_USERS = int(os.environ.get("BACKUP_USERS", "3"))
_ROUNDS = int(os.environ.get("BACKUP_ROUNDS", "1"))
_SETTLED = {"running", "stopped", "error", "terminated"}


@asynccontextmanager
async def busy(url: str) -> AsyncIterator[list[str]]:
    """Users who register, create and delete for the length of the block; ids of what they have made."""
    made: list[str] = []
    stop = asyncio.Event()

    async def work() -> None:
        while not stop.is_set():
            async with signed_in(url) as phone:
                answer = await phone.http.post("/api/v1/environments", json={"name": "busy", "template": "python"})
                assert answer.status_code == 201, answer.text
                made.append(answer.json()["id"])
                deleted = await phone.http.delete(f"/api/v1/environments/{made[-1]}")
                assert deleted.is_success, deleted.text

    async with asyncio.TaskGroup() as group:
        for _ in range(_BUSY_USERS):
            group.create_task(work())
        try:
            yield made
        finally:
            stop.set()


async def command(stack: LocalStack, *arguments: str) -> dict[str, Any]:
    """What `devpocket … --json` answers."""
    done = await asyncio.to_thread(stack.command, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def history(stack: LocalStack) -> dict[int, Recorded]:
    """Every event by its place in the stream."""
    running = load_stack(stack.data_dir)
    assert running is not None
    client = await nats.connect(running.environment["NATS_URL"])
    try:
        reader = StreamReader(client.jetstream())
        return {item.stored_sequence: item async for item in reader.read(EVENTS_STREAM, EVENTS_SUBJECTS)}
    finally:
        await client.close()


async def statuses(phone: Phone) -> dict[str, str]:
    """Of all environments that the user has."""
    return {item["name"]: item["status"] for item in (await phone.http.get("/api/v1/environments")).json()}


@pytest.fixture
def own(tmp_path: Path) -> LocalStack:
    """A stack to be wiped."""
    return LocalStack(tmp_path / "data", ADMIN_EMAIL=ADMIN_EMAIL, ADMIN_PASSWORD=ADMIN_PASSWORD)


@pytest.mark.timeout(300 * _ROUNDS)
async def test_what_was_backed_up_under_load_is_all_back_after_a_wipe(own: LocalStack, tmp_path: Path) -> None:
    own.up()
    try:
        for number in range(_ROUNDS):
            await _round_trip(own, tmp_path / f"backup-{number}", f"round-{number}")
    finally:
        own.down()


async def _round_trip(own: LocalStack, target: Path, prefix: str) -> None:
    async with log_in(own.url, ADMIN_EMAIL, ADMIN_PASSWORD) as admin:
        running = await admin.create(f"{prefix}-running")
        stopped = await admin.create(f"{prefix}-stopped")
        upload = await admin.http.put(f"/api/v1/environments/{running}/files/a.txt", content=b"mine")
        assert upload.is_success, upload.text
        await admin.http.post(f"/api/v1/environments/{stopped}/stop")
        await admin.until(stopped, "stopped")
        _, key = await admin.make_key("read")
        async with busy(own.url) as made:
            await eventually(_later(lambda: len(made) >= _BUSY_USERS))
            saved = await command(own, "backup", str(target))
            count = len(made)
            await eventually(_later(lambda: len(made) >= count + _BUSY_USERS))
    last = saved["last_sequences"]["DEVPOCKET_EVENTS"]
    before = await _longer_than(own, last)

    own.down()
    shutil.rmtree(own.data_dir)
    restored = await command(own, "restore", str(target))
    assert restored["last_sequences"] == saved["last_sequences"]
    own.up()

    async with log_in(own.url, ADMIN_EMAIL, ADMIN_PASSWORD) as admin:
        await admin.until(running, "running")
        assert (await statuses(admin))[f"{prefix}-stopped"] == "stopped"

        async def is_there() -> bool:
            """It is said to run because it did; its workspace is on its way up."""
            content = await admin.http.get(f"/api/v1/environments/{running}/files/a.txt")
            assert content.status_code in {200, 409}, content.text
            return content.content == b"mine"

        await eventually(is_there)
        assert (await admin.run(running, "cat a.txt")) == "0|mine"
    async with httpx.AsyncClient(base_url=own.url, headers={"Authorization": f"Bearer {key}"}) as by_key:
        assert (await by_key.get(f"/api/v1/environments/{running}")).status_code == 200
    await _is_sound(own, before, last)


async def _longer_than(own: LocalStack, last: int) -> dict[int, Recorded]:
    """The history once it goes on behind the backup; what was answered is published a little later."""
    events: dict[int, Recorded] = {}

    async def went_on() -> bool:
        nonlocal events
        events = await history(own)
        return max(events) > last

    await eventually(went_on)
    return events


async def _is_sound(own: LocalStack, before: dict[int, Recorded], last: int) -> None:
    """Same history, nothing twice, nothing in between for ever, no drift, no workspace of nobody."""
    after = await history(own)
    for sequence in range(1, last + 1):
        assert (after[sequence].subject, after[sequence].payload) == (
            before[sequence].subject,
            before[sequence].payload,
        )
    folder = own.data_dir / "runtime" / "workspaces"

    async def settled() -> bool:
        newest = _newest_statuses(await history(own))
        living = {environment for environment, status in newest.items() if status != "terminated"}
        return set(newest.values()) <= _SETTLED and {path.name for path in folder.iterdir()} == living

    await eventually(settled, 60)
    ids = Counter(item.identity for item in (await history(own)).values())
    assert not [event for event, times in ids.items() if times > 1]
    for _ in range(3):
        bad = [found for found in await replays(own.data_dir) if found.problem or found.drifted or found.failed]
        if not bad:
            return
        # What a service was only about to handle has not drifted: the next look finds it.
    pytest.fail(str(bad))


def _newest_statuses(events: dict[int, Recorded]) -> dict[str, str]:
    """Of every environment that was ever made."""
    newest: dict[str, str] = {}
    for item in events.values():
        if isinstance(item.data, EnvironmentWish):
            newest.setdefault(item.data.environment_id, "unknown")
        elif isinstance(item.data, EnvironmentStatusChanged):
            newest[item.data.environment_id] = item.data.status.value
    return newest


def _later(fact: Any) -> Any:
    async def ask() -> bool:
        return bool(fact())

    return ask
