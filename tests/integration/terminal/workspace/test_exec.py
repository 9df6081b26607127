"""One command over HTTP, on both runtimes."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx

from tests.integration.terminal.workspace.harness import LOCAL, Desk, problem
from tests.support.app import eventually

_MIB = 1024 * 1024


async def run(http: httpx.AsyncClient, command: list[str] | str, **more: Any) -> dict[str, Any]:
    answer = await http.post("/exec", json={"command": command, **more})
    assert answer.status_code == 200, answer.text
    outcome: dict[str, Any] = answer.json()
    assert outcome["duration_ms"] >= 0
    return outcome


async def test_a_command_in_the_workspace(http: httpx.AsyncClient) -> None:
    outcome = await run(http, ["sh", "-c", "echo out; echo err >&2; [ $(pwd) = $HOME ] && tty; exit 3"])
    assert (outcome["exit_code"], outcome["stdout"], outcome["stderr"]) == (3, "out\nnot a tty\n", "err\n")
    assert (outcome["timed_out"], outcome["truncated"], outcome["encoding"]) == (False, False, "utf-8")


async def test_arguments_and_variables_arrive_as_they_are(http: httpx.AsyncClient) -> None:
    arguments = ["a b", "", "'", '"', "$HOME", "`id`", "\\", "*", "line\nbreak", "-n", "ünï"]
    outcome = await run(http, ["printf", "%s|", *arguments])
    assert outcome["stdout"].split("|")[:-1] == arguments
    variables = {"GREETING": "it's $HOME\n", "EMPTY": ""}
    outcome = await run(http, 'echo "$GREETING[$EMPTY]"', environment_variables=variables)
    assert outcome["stdout"] == "it's $HOME\n[]\n"


async def test_a_line_for_the_login_shell(http: httpx.AsyncClient) -> None:
    outcome = await run(http, "shopt -q login_shell && echo login | tr a-z A-Z; false")
    assert (outcome["stdout"], outcome["exit_code"]) == ("LOGIN\n", 1)


async def test_input(http: httpx.AsyncClient) -> None:
    text = "grüße\0\n" * 50_000
    outcome = await run(http, ["sha256sum"], stdin=text)
    assert outcome["stdout"] == (await run(http, ["sh", "-c", "cat | sha256sum"], stdin=text))["stdout"]
    assert (await run(http, ["cat"]))["stdout"] == ""
    # Nobody has to read it.
    assert (await run(http, ["true"], stdin="x" * 1_000_000))["exit_code"] == 0


async def test_a_missing_program(http: httpx.AsyncClient) -> None:
    outcome = await run(http, ["no-such-program"])
    assert outcome["exit_code"] == 127
    assert "no-such-program" in outcome["stdout"] + outcome["stderr"]


async def test_a_signal(http: httpx.AsyncClient) -> None:
    assert (await run(http, ["sh", "-c", "kill -SEGV $$"]))["exit_code"] == 139


async def test_output_that_is_no_text(http: httpx.AsyncClient) -> None:
    command = ["printf", "\\377\\000ok"]
    assert (await run(http, command))["stdout"] == "\ufffd\0ok"
    outcome = await run(http, command, encoding="base64")
    assert (base64.b64decode(outcome["stdout"]), outcome["encoding"]) == (b"\xff\x00ok", "base64")


async def test_output_beyond_the_limit_is_dropped(http: httpx.AsyncClient) -> None:
    outcome = await run(http, ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2; exit 5"])
    assert (len(outcome["stdout"]), outcome["truncated"]) == (_MIB, True)
    assert (outcome["stderr"], outcome["exit_code"]) == ("end\n", 5)
    exactly = await run(http, ["sh", "-c", f"head -c {_MIB} /dev/zero | tr '\\0' x >&2"])
    assert (len(exactly["stderr"]), exactly["truncated"]) == (_MIB, False)


async def test_its_time_is_up(desk: Desk, http: httpx.AsyncClient) -> None:
    command = "echo begun; (trap '' HUP TERM; exec sleep 4242) & nohup sleep 4242 2>/dev/null & sleep 4242"
    outcome = await run(http, ["sh", "-c", command], timeout_seconds=1)
    assert (outcome["exit_code"], outcome["timed_out"], outcome["stdout"]) == (None, True, "begun\n")
    # The command would have gone on for an hour.
    assert 1000 <= outcome["duration_ms"] < 60_000
    assert await desk.count("4242") == 0


async def test_what_it_leaves_behind_is_ended(desk: Desk, http: httpx.AsyncClient) -> None:
    outcome = await run(http, ["sh", "-c", "sleep 4343 & echo done"])
    assert (outcome["stdout"], outcome["exit_code"]) == ("done\n", 0)
    await desk.ended("4343")


async def test_a_client_that_has_gone_ends_it(desk: Desk, http: httpx.AsyncClient) -> None:
    asking = asyncio.create_task(http.post("/exec", json={"command": ["sh", "-c", "sleep 4444 & sleep 4444"]}))
    await eventually(lambda: _both_run(desk))
    asking.cancel()
    await desk.ended("4444")


async def _both_run(desk: Desk) -> bool:
    return await desk.count("4444") > 1


@LOCAL
async def test_requests_that_make_no_sense(desk: Desk, http: httpx.AsyncClient) -> None:
    true = {"command": ["true"]}
    bodies: list[dict[str, Any]] = [
        {},
        {"command": []},
        {"command": ""},
        {"command": [""]},
        {"command": ["a\0b"]},
        {"command": "\ud800"},
        {"command": ["x" * 70_000]},
        {**true, "timeout_seconds": 0},
        {**true, "timeout_seconds": 601},
        {**true, "stdin": "\ud800"},
        {**true, "environment_variables": {"a b": "c"}},
        {**true, "environment_variables": {"a": "\0"}},
        {**true, "encoding": "latin-1"},
        {**true, "tty": True},
    ]
    for body in bodies:
        headers = {"Content-Type": "application/json"}
        answer = await http.post("/exec", content=json.dumps(body), headers=headers)
        assert problem(answer) == (422, "validation_error"), body
