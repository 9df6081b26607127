"""Stops, crashes and restarts, for real, on a stack of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.phone import Phone, log_in, read_until, signed_in
from tests.support.stack import LocalStack

pytestmark = pytest.mark.chaos

# 10 s are what the parts get together to end; a busy machine is late with each.
_STOP_BUDGET_S = 30.0
_PASSWORD = "Passw0rd-of-a-test"


@pytest.fixture(scope="module")
def hurt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """One stack that takes everything in turn."""
    stack = LocalStack(tmp_path_factory.mktemp("hurt") / "data")
    yield stack
    stack.down()
    assert stack.processes() == []


@pytest.fixture
def fragile(hurt: LocalStack) -> LocalStack:
    """The stack, up again if the test before has left it in pieces."""
    rows = hurt.status()
    if not rows or any(row["state"] != "running" for row in rows):
        if rows:
            hurt.kill_everything()
        hurt.up()
    return hurt


def replaced(rows: list[dict[str, Any]], old: Mapping[str, int]) -> bool:
    """Everything runs, and what `old` names in other processes."""
    return all(row["state"] == "running" and row["pid"] != old.get(row["name"]) for row in rows)


async def test_a_killed_service_comes_back_and_no_sandbox_notices(fragile: LocalStack) -> None:
    async with signed_in(fragile.url) as phone:
        environment_id = await phone.create()
        before = await phone.run(environment_id, "nohup sleep 1000 >/dev/null 2>&1 & echo $!")
        pid = before.removeprefix("0|").split()[-1]
        # One whose children they are, then the others, all of which the gateway loses at once.
        for names in (("orchestrator",), ("envs", "terminal", "auth")):
            victims = {name: fragile.pid_of(name) for name in names}
            for victim in victims.values():
                os.kill(victim, signal.SIGKILL)
            await asyncio.to_thread(fragile.wait_until, partial(replaced, old=victims))
        assert await phone.run(environment_id, f"kill -0 {pid} && echo alive") == "0|alive"


async def test_a_sandbox_killed_by_hand_is_back_and_the_story_says_so(fragile: LocalStack) -> None:
    async with signed_in(fragile.url) as phone:
        environment_id = await phone.create()
        async with phone.socket(environment_id) as socket:
            await socket.send(json.dumps({"type": "input", "data": "exec -a marked-shell sleep 4321\n"}))
            await read_until(socket, "sleep 4321")
            sandbox = await asyncio.to_thread(_sandbox_with, "4321")
            sandbox.kill()
            async with asyncio.timeout(60):
                while True:
                    answer = await phone.http.get(f"/api/v1/environments/{environment_id}/events")
                    names = [event["type"].split(".")[2] for event in answer.json()["events"]]
                    if "lost" in names and "running" in names[names.index("lost") :]:
                        break
                    await asyncio.sleep(0.1)
        assert (await phone.run(environment_id, "echo back")) == "0|back"


async def test_down_and_up_again_runs_what_ran(fragile: LocalStack) -> None:
    async with signed_in(fragile.url, password=_PASSWORD) as phone:
        name = phone.account["username"]
        environment_id = await phone.create()
        await phone.run(environment_id, "echo kept > file.txt")
    started = time.monotonic()
    await asyncio.to_thread(fragile.down)
    assert time.monotonic() - started < _STOP_BUDGET_S
    assert await asyncio.to_thread(fragile.processes) == []
    await asyncio.to_thread(fragile.up)
    async with log_in(fragile.url, name, _PASSWORD) as phone:
        await phone.until(environment_id, "running")
        assert await _run_when_back(phone, environment_id, "cat file.txt") == "0|kept"


async def test_everything_killed_comes_back_as_it_was_and_ends_on_ctrl_c(fragile: LocalStack) -> None:
    async with signed_in(fragile.url, password=_PASSWORD) as phone:
        name = phone.account["username"]
        environment_id = await phone.create()
        await phone.run(environment_id, "echo kept > file.txt; sync")
    await asyncio.to_thread(fragile.kill_everything)
    with fragile.attached() as terminal:
        async with log_in(fragile.url, name, _PASSWORD) as phone:
            await phone.until(environment_id, "running")
            assert await _run_when_back(phone, environment_id, "cat file.txt") == "0|kept"
            assert (await asyncio.to_thread(fragile.command, "demo", "--json")).returncode == 0
        started = time.monotonic()
        terminal.send_signal(signal.SIGINT)
        await asyncio.to_thread(terminal.communicate, timeout=90)
        assert time.monotonic() - started < _STOP_BUDGET_S
    assert terminal.returncode == 0
    assert await asyncio.to_thread(fragile.processes) == []


async def _run_when_back(phone: Phone, environment_id: str, command: str) -> str:
    """The status may still say `running` from before: the sandbox is repaired within seconds."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await phone.run(environment_id, command)
            except Exception:
                await asyncio.sleep(0.2)


def _sandbox_with(words: str) -> psutil.Process:
    """The first process of the PID namespace that a process with these words lives in."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for process in psutil.process_iter():
            try:
                if words in process.cmdline() and process.name() != "bash":
                    namespace = os.readlink(f"/proc/{process.pid}/ns/pid")
                    if namespace != os.readlink("/proc/self/ns/pid"):
                        return next(p for p in psutil.process_iter() if _is_first(p, namespace))
            except (psutil.Error, OSError):
                continue
        time.sleep(0.05)
    raise AssertionError(f"no sandbox runs {words}")


def _is_first(process: psutil.Process, namespace: str) -> bool:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
        same = os.readlink(f"/proc/{process.pid}/ns/pid") == namespace
    except OSError:
        return False
    return same and any(line.startswith("NSpid:") and line.split()[-1] == "1" for line in status.splitlines())
