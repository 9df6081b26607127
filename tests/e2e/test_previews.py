"""An application in an environment, looked at through the gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support import webapp
from tests.support.app import eventually
from tests.support.phone import Phone, log_in
from tests.support.stack import LocalStack

PORT = 8080
MIB = 1 << 20


@pytest.fixture
async def environment_id(alice: Phone) -> AsyncIterator[str]:
    """One in which the application runs."""
    created = await alice.create()
    path = f"/api/v1/environments/{created}"
    stored = await alice.http.put(f"{path}/files/webapp.py", content=webapp.SOURCE)
    assert stored.status_code == 201, stored.text
    # Without a terminal a command ends with what it has started: this one lasts as long as its request.
    body = {"command": ["python3", "webapp.py", str(PORT), "alice"], "timeout_seconds": 300}
    running = asyncio.create_task(alice.http.post(f"{path}/exec", json=body, timeout=None))

    async def listens() -> bool:
        ports = await alice.http.get(f"{path}/ports")
        return ports.status_code == 200 and bool(ports.json())

    await eventually(listens)
    yield created
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await alice.http.delete(path)
    await alice.until(created, "terminated")


async def opened(phone: Phone, http: httpx.AsyncClient, environment_id: str) -> httpx.Response:
    """What the first page says to a browser that comes with a ticket."""
    body = {"environment_id": environment_id, "kind": "preview"}
    ticket = (await phone.http.post("/api/v1/ws/tickets", json=body)).json()["ticket"]
    return await http.get(f"/preview/{environment_id}/{PORT}/", params={"ticket": ticket}, follow_redirects=True)


async def read_on(lines: AsyncIterator[str]) -> None:
    """To the end."""
    async for _ in lines:
        pass


async def test_a_page_events_uploads_and_a_websocket(stack: LocalStack, alice: Phone, environment_id: str) -> None:
    ports = (await alice.http.get(f"/api/v1/environments/{environment_id}/ports")).json()
    prefix = f"/preview/{environment_id}/{PORT}"
    own_origin = f"http://{environment_id}.localhost:{stack.url.rpartition(':')[2]}"
    assert ports == [{"port": PORT, "address": "127.0.0.1", "url": f"{own_origin}{prefix}/"}]
    async with httpx.AsyncClient(base_url=stack.url, timeout=60) as http:
        page = await opened(alice, http, environment_id)
        assert (page.status_code, page.json()["name"]) == (200, "alice")
        told = dict(page.json()["headers"])
        assert told["x-forwarded-prefix"] == prefix
        assert told["x-forwarded-host"] == stack.url.removeprefix("http://")
        assert "cookie" not in told
        assert page.headers["content-security-policy"].startswith("sandbox allow-scripts")
        assert "x-frame-options" not in page.headers
        assert "x-request-id" in page.headers

        own = {"Host": own_origin.removeprefix("http://"), "Authorization": f"Bearer {alice.token}"}
        unboxed = await http.get(f"{prefix}/", headers=own)
        assert unboxed.status_code == 200
        assert "content-security-policy" not in unboxed.headers

        async with http.stream("GET", f"{prefix}/events") as events, asyncio.timeout(60):
            lines = events.aiter_lines()
            assert [await anext(lines) for _ in range(3)] == ["data: 0", "", "data: 1"]

        uploaded = await http.post(f"{prefix}/count", content=bytes(24 * MIB))
        assert uploaded.text == str(24 * MIB)

        cookie = "; ".join(f"{cookie.name}={cookie.value}" for cookie in http.cookies.jar)
        url = f"{stack.url.replace('http', 'ws', 1)}{prefix}/chat"
        async with connect(url, proxy=None, additional_headers={"Cookie": cookie}) as socket:
            assert json.loads(await socket.recv())["path"] == "/chat"
            await socket.send("hello")
            assert await asyncio.wait_for(socket.recv(), 60) == "hello"


async def test_nobody_else_sees_it(stack: LocalStack, alice: Phone, bob: Phone, environment_id: str) -> None:
    prefix = f"/preview/{environment_id}/{PORT}"
    assert (await bob.http.get(f"{prefix}/")).status_code == 404
    assert (await bob.http.get(f"/api/v1/environments/{environment_id}/ports")).status_code == 404
    body = {"environment_id": environment_id, "kind": "preview"}
    assert (await bob.http.post("/api/v1/ws/tickets", json=body)).status_code == 404
    elsewhere = {"Host": f"{'0' * 32}.localhost:{stack.url.rpartition(':')[2]}"}
    assert (await alice.http.get(f"{prefix}/", headers=elsewhere)).status_code == 404
    async with httpx.AsyncClient(base_url=stack.url, timeout=60) as http:
        assert (await http.get(f"{prefix}/")).status_code == 401
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"{stack.url.replace('http', 'ws', 1)}{prefix}/", proxy=None):
                pass
        assert refused.value.response.status_code == 401


async def test_the_stacks_own_ports_are_not_there(stack: LocalStack, alice: Phone, environment_id: str) -> None:
    ports = {process["port"] for process in stack.status() if process["port"]}
    assert len(ports) > 5
    for port in ports - {PORT}:
        answer = await alice.http.get(f"/preview/{environment_id}/{port}/")
        assert (answer.status_code, answer.json()["code"]) == (502, "nothing_listens"), port


async def test_signing_out_ends_it(stack: LocalStack, alice: Phone, environment_id: str) -> None:
    prefix = f"/preview/{environment_id}/{PORT}"
    async with (
        log_in(stack.url, alice.account["username"], "Passw0rd-of-a-test") as leaving,
        httpx.AsyncClient(base_url=stack.url, timeout=60) as http,
    ):
        assert (await opened(leaving, http, environment_id)).status_code == 200
        async with http.stream("GET", f"{prefix}/events") as events:
            lines = events.aiter_lines()
            await anext(lines)
            assert (await leaving.http.post("/api/v1/auth/logout")).status_code == 200
            async with asyncio.timeout(60):
                with pytest.raises(httpx.RemoteProtocolError):
                    await read_on(lines)
        assert (await http.get(f"{prefix}/")).status_code == 401
