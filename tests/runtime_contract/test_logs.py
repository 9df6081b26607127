"""Logs: what every driver must do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from libs.runtime.port import WorkspaceNotFoundError, WorkspaceRef
from tests.runtime_contract.workspaces import Driver, Workspaces, collect_logs, make_spec


async def test_the_startup_command_is_logged(runtime: Driver, workspaces: Workspaces) -> None:
    before = datetime.now(UTC)
    ref = await workspaces.start(make_spec(startup_command="echo out; echo err >&2; pwd; printf 'no newline'; exit 3"))

    lines = await collect_logs(runtime.logs(ref, follow=True), "The startup command ended with code 3.")

    assert ("stdout", "out") in [(line.stream, line.message) for line in lines]
    assert ("stderr", "err") in [(line.stream, line.message) for line in lines]
    assert lines[-1].stream == "system"
    times = [line.timestamp for line in lines]
    assert before <= times[0]
    assert times == sorted(times)


async def test_the_startup_command_runs_once_per_start_in_a_login_shell(
    runtime: Driver, workspaces: Workspaces
) -> None:
    command = 'echo run >> runs; echo "$TOKEN $0"; shopt -q login_shell && echo login'
    ref = await workspaces.start(make_spec(variables={"TOKEN": "abc"}, startup_command=command))

    lines = await collect_logs(runtime.logs(ref, follow=True), "login")

    assert any(line.message.startswith("abc ") for line in lines)
    assert (await workspaces.run(ref, "cat runs"))[1] == b"run\n"


async def test_a_startup_command_that_stays_does_not_delay_the_start(runtime: Driver, workspaces: Workspaces) -> None:
    async with asyncio.timeout(30):
        ref = await workspaces.start(make_spec(startup_command="echo serving; sleep 1000"))
        await collect_logs(runtime.logs(ref, follow=True), "serving")
        assert (await workspaces.run(ref, "echo fine"))[1] == b"fine\n"


async def test_follow_tells_what_comes_later(runtime: Driver, workspaces: Workspaces) -> None:
    command = "echo first; while [ ! -e go ]; do sleep 0.05; done; echo second"
    ref = await workspaces.start(make_spec(startup_command=command))
    lines = runtime.logs(ref, follow=True)
    await collect_logs(lines, "first")

    await workspaces.run(ref, "touch go")

    async with asyncio.timeout(30):
        assert (await anext(lines)).message == "second"


async def test_tail_and_since(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start(make_spec(startup_command="seq 1000; sleep 0.05; echo done"))
    # The last line there will be: without waiting for it the tail is a moving target.
    ended = "The startup command ended with code 0."
    every = await collect_logs(runtime.logs(ref, follow=True), ended)

    assert [line.message async for line in runtime.logs(ref, tail=3)] == ["1000", "done", ended]
    assert [line.message async for line in runtime.logs(ref, tail=0)] == []
    moment = every[-2].timestamp
    since = [line.message async for line in runtime.logs(ref, since=moment)]
    # Whoever reads the log late finds more lines of one moment.
    assert since == [line.message for line in every if line.timestamp >= moment]
    assert since[-2:] == ["done", ended]
    assert len([line async for line in runtime.logs(ref)]) >= 1001


async def test_odd_output_is_kept(runtime: Driver, workspaces: Workspaces) -> None:
    command = r"printf 'bad \377 byte\n'; printf 'crlf\r\n'; head -c 100000 /dev/zero | tr '\0' x; echo; echo end"
    ref = await workspaces.start(make_spec(startup_command=command))

    messages = [line.message for line in await collect_logs(runtime.logs(ref, follow=True), "end")]

    assert "bad � byte" in messages
    assert "crlf" in messages
    assert sum(message.count("x") for message in messages if set(message) == {"x"}) == 100_000


async def test_logs_stay_when_the_workspace_stops_and_go_with_it(runtime: Driver, workspaces: Workspaces) -> None:
    ref = await workspaces.start(make_spec(startup_command="echo remember me"))
    await collect_logs(runtime.logs(ref, follow=True), "remember me")

    await runtime.stop(ref)
    assert "remember me" in [line.message async for line in runtime.logs(ref)]

    following = runtime.logs(ref, follow=True)
    await anext(following)
    await runtime.delete(ref)
    async with asyncio.timeout(30):
        assert "remember me" in [line.message async for line in following]
    with pytest.raises(WorkspaceNotFoundError):
        await anext(runtime.logs(ref))


async def test_logs_of_a_stranger(runtime: Driver) -> None:
    with pytest.raises(WorkspaceNotFoundError):
        await anext(runtime.logs(WorkspaceRef("env-that-never-was", "user-1")))
