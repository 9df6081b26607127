"""Who may have files and commands, how many at once, and what ends them."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from libs.common.contracts.environments import EnvironmentStatus
from libs.common.contracts.identity import Scope
from tests.integration.terminal.workspace.harness import LOCAL, Desk, problem
from tests.support.app import eventually

pytestmark = LOCAL

_READING = [
    ("GET", "/files"),
    ("GET", "/files/.profile"),
    ("GET", "/files?archive=tar.gz"),
    ("HEAD", "/files/.profile"),
]
_CHANGING = [("PUT", "/files/f"), ("PUT", "/files?archive=tar.gz"), ("DELETE", "/files/f"), ("POST", "/exec")]


async def ask(client: httpx.AsyncClient, method: str, address: str) -> httpx.Response:
    if method == "POST":
        return await client.post(address, json={"command": ["true"]})
    return await client.request(method, address, content=b"x" if method == "PUT" else None)


class TestAccess:
    async def test_an_environment_of_somebody_else_is_not_there(self, desk: Desk) -> None:
        async with desk.client(desk.service.issuer.token()) as stranger:
            for method, address in (*_READING, *_CHANGING):
                answer = await ask(stranger, method, address)
                assert answer.status_code == 404
                if method != "HEAD":
                    assert problem(answer) == (404, "environment_not_found")

    async def test_nobody_may_do_anything(self, desk: Desk) -> None:
        async with desk.client("nothing") as nobody:
            for method, address in (*_READING, *_CHANGING):
                assert (await ask(nobody, method, address)).status_code == 401

    async def test_keys_need_the_scope_for_changes(self, desk: Desk) -> None:
        key = await desk.service.api_key(desk.user_id, Scope.ENVIRONMENTS)
        async with desk.client(str(key)) as client:
            for method, address in _READING:
                assert (await ask(client, method, address)).status_code == 200
            for method, address in _CHANGING:
                assert problem(await ask(client, method, address)) == (403, "forbidden")

    async def test_it_must_run(self, desk: Desk) -> None:
        stopped = await desk.service.environment(desk.user_id, EnvironmentStatus.STOPPED)
        async with desk.client() as client:
            for method, address in (*_READING[:1], *_CHANGING[:1], *_CHANGING[-1:]):
                answer = await ask(
                    client, method, f"{client.base_url}".replace(desk.environment_id, stopped) + address[1:]
                )
                assert problem(answer) == (409, "environment_not_running")


class TestLimits:
    async def test_so_many_at_once(self, desk: Desk) -> None:
        async with desk.client() as client:
            sleeping = {"command": ["sleep", "777"]}
            commands = [asyncio.create_task(client.post("/exec", json=sleeping)) for _ in range(4)]
            try:
                await eventually(lambda: _as_many(desk, 4))
                answer = await client.post("/exec", json={"command": ["true"]})
                assert problem(answer) == (429, "too_many_at_once")
                assert answer.headers["retry-after"] == "1"
                # Files are counted for themselves.
                assert (await client.get("/files")).status_code == 200
            finally:
                for command in commands:
                    command.cancel()
                await asyncio.gather(*commands, return_exceptions=True)
            await desk.ended("777")


class TestEndings:
    async def test_a_revoked_sign_in_ends_what_it_has_begun(self, desk: Desk) -> None:
        key = await desk.service.api_key(desk.user_id, Scope.TERMINAL)
        async with desk.client(str(key)) as client:
            command = asyncio.create_task(client.post("/exec", json={"command": ["sleep", "888"]}))
            upload = asyncio.create_task(desk.upload("/files/endless", str(key), [b"the beginning"]))
            await eventually(lambda: _running(desk, "888"))
            await eventually(lambda: _uploading(desk))
            await desk.service.revoke(desk.user_id, f"{key.id}-0")
            assert problem(await command) == (401, "session_revoked")
            assert b'"code":"session_revoked"' in await upload
            await desk.ended("888")
            await desk.nothing_waits()

    async def test_a_download_that_nobody_takes_ends_as_well(self, desk: Desk) -> None:
        await desk.run("head -c 50000000 /dev/zero > zeros")
        key = await desk.service.api_key(desk.user_id, Scope.READ)
        async with desk.client(str(key)) as client, client.stream("GET", "/files/zeros") as answer:
            await desk.service.revoke(desk.user_id, f"{key.id}-0")
            await eventually(lambda: _no_reader(desk))
            with pytest.raises(httpx.RemoteProtocolError):
                await answer.aread()

    async def test_a_client_that_has_gone_ends_its_download(self, desk: Desk) -> None:
        await desk.run("head -c 50000000 /dev/zero > zeros")
        async with desk.client() as client:
            async with client.stream("GET", "/files/zeros") as answer:
                assert answer.headers["content-length"] == "50000000"
                assert await anext(answer.aiter_raw())
            await eventually(lambda: _no_reader(desk))
            await desk.run("rm zeros")


async def _as_many(desk: Desk, number: int) -> bool:
    return await desk.count("777") == number


async def _running(desk: Desk, mark: str) -> bool:
    return await desk.count(mark) == 1


async def _uploading(desk: Desk) -> bool:
    return await desk.run("cat .devpocket-uploads/*/body 2>/dev/null || true") == b"the beginning"


async def _no_reader(desk: Desk) -> bool:
    return await desk.run("ps -eo args | grep -c '^[c]at$' || true") == b"0\n"
