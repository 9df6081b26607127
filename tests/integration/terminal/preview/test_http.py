"""Requests to applications in workspaces: what they are told, and what comes back."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from libs.runtime.port import WorkspaceRef
from tests.integration.terminal.harness import TIMEOUT_S
from tests.integration.terminal.preview.harness import PORT, Owner, Street, headers_of
from tests.integration.terminal.workspace.harness import problem
from tests.runtime_contract.workspaces import Workspaces
from tests.support.app import eventually

MIB = 1 << 20


class TestOpening:
    async def test_a_ticket_becomes_a_cookie_of_these_previews_alone(self, alice: Owner) -> None:
        async with alice.http() as http:
            opened = await http.get(f"{alice.prefix}/docs?a=1", params={"ticket": await alice.ticket(), "a": "1"})
            assert (opened.status_code, opened.headers["location"]) == (303, f"{alice.prefix}/docs?a=1")
            cookie = opened.headers["set-cookie"]
            assert f"Path=/preview/{alice.environment_id}/;" in cookie
            assert "HttpOnly" in cookie
            assert "SameSite=Lax" in cookie
            told = (await http.get(opened.headers["location"])).json()
        assert (told["name"], told["path"]) == ("alice", "/docs?a=1")
        assert "cookie" not in headers_of(told)

    async def test_a_ticket_is_good_once(self, alice: Owner) -> None:
        ticket = await alice.ticket()
        async with alice.http() as first, alice.http() as second:
            assert (await first.get(f"{alice.prefix}/", params={"ticket": ticket})).status_code == 303
            assert problem(await second.get(f"{alice.prefix}/", params={"ticket": ticket})) == (401, "unauthenticated")

    async def test_a_token_works_and_is_kept_from_the_application(self, alice: Owner) -> None:
        async with alice.http(bearer=True) as http:
            told = (await http.get(f"{alice.prefix}/")).json()
        assert told["name"] == "alice"
        assert "authorization" not in headers_of(told)

    async def test_the_applications_own_authorization_reaches_it(self, alice: Owner) -> None:
        async with alice.browser() as http:
            told = (await http.get(f"{alice.prefix}/", headers={"Authorization": "Basic YTpi"})).json()
        assert headers_of(told)["authorization"] == "Basic YTpi"

    async def test_without_a_slash_it_is_redirected(self, alice: Owner) -> None:
        async with alice.browser() as http:
            answer = await http.get(f"{alice.prefix}?a=1")
        assert (answer.status_code, answer.headers["location"]) == (307, f"{alice.prefix}/?a=1")

    async def test_people_get_a_page(self, alice: Owner) -> None:
        async with alice.http() as http:
            answer = await http.get(f"{alice.prefix}/", headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert "sandbox" in answer.headers["content-security-policy"]


class TestRequests:
    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    async def test_any_method_passes_with_its_body(self, alice: Owner, method: str) -> None:
        async with alice.browser() as http:
            told = (await http.request(method, f"{alice.prefix}/a%20b/%2e?x=%C3%A4", content=b"body")).json()
        assert (told["method"], told["path"], told["body"]) == (method, "/a%20b/%2e?x=%C3%A4", "body")

    async def test_head_has_no_body(self, alice: Owner) -> None:
        async with alice.browser() as http:
            answer = await http.head(f"{alice.prefix}/")
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["content-length"]) > 0

    async def test_the_application_learns_how_it_is_reached(self, alice: Owner) -> None:
        claimed = {
            "X-Forwarded-For": "6.6.6.6",
            "X-Forwarded-Host": "evil.example",
            "Connection": "X-Hop",
            "X-Hop": "1",
        }
        async with alice.browser() as http:
            told = headers_of((await http.get(f"{alice.prefix}/", headers=claimed)).json())
        assert told["host"] == f"localhost:{PORT}"
        assert told["x-forwarded-host"] == alice.service.address
        assert told["x-forwarded-proto"] == "http"
        assert told["x-forwarded-prefix"] == alice.prefix
        assert "x-hop" not in told

    async def test_its_cookies_come_back_to_it_alone(self, alice: Owner) -> None:
        async with alice.browser() as http:
            await http.get(f"{alice.prefix}/answer", params={"Set-Cookie": "mine=1; Path=/; Domain=example.com"})
            told = headers_of((await http.get(f"{alice.prefix}/")).json())
            kept = {(cookie.name, cookie.path) for cookie in http.cookies.jar}
        assert told["cookie"] == "mine=1"
        assert ("mine", f"{alice.prefix}/") in kept

    async def test_it_cannot_set_our_cookie(self, alice: Owner) -> None:
        async with alice.browser() as http:
            answer = await http.get(f"{alice.prefix}/answer", params={"Set-Cookie": "devpocket_preview=x; Path=/"})
            assert "set-cookie" not in answer.headers
            assert (await http.get(f"{alice.prefix}/")).status_code == 200


class TestAnswers:
    async def test_pages_are_in_a_sandbox(self, alice: Owner) -> None:
        async with alice.browser() as http:
            answer = await http.get(f"{alice.prefix}/")
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("sandbox allow-scripts")
        assert "allow-same-origin" not in policy

    async def test_redirects_stay_in_the_preview(self, alice: Owner) -> None:
        async with alice.browser() as http:
            query = {"status": "302", "Location": f"http://localhost:{PORT}/login"}
            answer = await http.get(f"{alice.prefix}/answer", params=query)
        assert (answer.status_code, answer.headers["location"]) == (302, f"{alice.prefix}/login")

    async def test_it_speaks_neither_to_the_gateway_nor_for_the_origin(self, alice: Owner) -> None:
        query = {"X-Accel-Redirect": "/problem_400", "Clear-Site-Data": '"*"', "Alt-Svc": "h3", "X-Other": "stays"}
        async with alice.browser() as http:
            answer = await http.get(f"{alice.prefix}/answer", params=query)
        assert answer.headers["x-other"] == "stays"
        assert not {"x-accel-redirect", "clear-site-data", "alt-svc"} & set(answer.headers)

    async def test_events_flow_as_they_are_made(self, alice: Owner) -> None:
        async with alice.browser() as http, http.stream("GET", f"{alice.prefix}/events") as answer:
            lines = answer.aiter_lines()
            async with asyncio.timeout(TIMEOUT_S):
                assert [await anext(lines) for _ in range(3)] == ["data: 0", "", "data: 1"]

    async def test_much_goes_both_ways_at_the_same_time(self, alice: Owner) -> None:
        piece = random.Random(1).randbytes(256 * 1024)
        sent, back = hashlib.sha256(), hashlib.sha256()

        async def body() -> AsyncIterator[bytes]:
            for _ in range(64):
                sent.update(piece)
                yield piece

        # httpx sends all before it reads any, so what comes back has to wait in between.
        received = await echoed(alice, body())
        back.update(received)
        assert len(received) == 64 * len(piece)
        assert back.digest() == sent.digest()

    async def test_a_long_answer_is_not_kept(self, alice: Owner) -> None:
        size = 0
        async with alice.browser() as http, http.stream("GET", f"{alice.prefix}/flood?bytes={64 * MIB}") as answer:
            async for part in answer.aiter_bytes():
                size += len(part)
        assert size == 64 * MIB


async def echoed(owner: Owner, body: AsyncIterator[bytes]) -> bytes:
    """Upload in chunks and read the answer at the same time."""
    host, port = owner.service.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {owner.prefix}/echo HTTP/1.1\r\nHost: {owner.service.address}\r\nCookie: {await owner.cookie()}\r\n"
    writer.write(f"{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode())
    received = bytearray()

    async def read() -> None:
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        while size := int(await reader.readline(), 16):
            received.extend(await reader.readexactly(size))
            await reader.readline()

    reading = asyncio.create_task(read())
    try:
        async for piece in body:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await asyncio.wait_for(reading, 60)
    finally:
        reading.cancel()
        writer.close()
    return bytes(received)


class TestTrouble:
    async def test_nothing_listens(self, alice: Owner) -> None:
        async with alice.browser() as http:
            answer = await http.get(f"/preview/{alice.environment_id}/8124/")
            assert problem(answer) == (502, "nothing_listens")
            assert "8124" in answer.json()["detail"]

    async def test_it_hangs_up(self, alice: Owner) -> None:
        async with alice.browser() as http:
            assert problem(await http.get(f"{alice.prefix}/goodbye")) == (502, "bad_answer")

    async def test_it_does_not_answer(self, alice: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
        async with alice.browser() as http:
            state = alice.service.app.state
            impatient = state.terminal.settings.model_copy(update={"preview_answer_seconds": 0.5})
            monkeypatch.setitem(state._state, "terminal", replace(state.terminal, settings=impatient))
            assert problem(await http.get(f"{alice.prefix}/slow")) == (504, "no_answer")

    @pytest.mark.parametrize(
        "path", ["/preview/x", "/preview/x/0/", "/preview/x/70000/", "/preview/x/abc/", "/preview/"]
    )
    async def test_no_address_of_a_preview(self, alice: Owner, path: str) -> None:
        async with alice.http(bearer=True) as http:
            assert problem(await http.get(path)) == (404, "not_found")

    async def test_so_many_at_a_time(self, alice: Owner) -> None:
        async with alice.browser() as http:

            async def answers(status: int, path: str = "/") -> bool:
                return (await http.get(f"{alice.prefix}{path}")).status_code == status

            async def wait() -> None:
                while await answers(429, "/slow"):
                    pass

            waiting = [asyncio.create_task(wait()) for _ in range(8)]
            try:
                await eventually(lambda: answers(429))
                assert problem(await http.get(f"{alice.prefix}/")) == (429, "too_many_at_once")
                assert not any(task.done() for task in waiting)
            finally:
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
            await eventually(lambda: answers(200))


async def test_whoever_leaves_leaves_nothing_behind(street: Street, alice: Owner) -> None:
    """The application is hung up on, and the place is free again."""
    ref = WorkspaceRef(alice.environment_id, alice.user_id)
    # State 01: an established connection, here that of the application's side.
    look = f"grep -c ':{PORT:04X} .* 01 ' /proc/net/tcp || true"

    async def connections() -> int:
        return int((await Workspaces(street.runtime).run(ref, look))[1])

    async def none() -> bool:
        return await connections() == 0

    await eventually(none)
    for number in range(12):
        async with alice.browser() as http, http.stream("GET", f"{alice.prefix}/events") as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            assert number > 0 or await connections() >= 1
    await eventually(none)


async def test_ports_are_listed_with_their_addresses(alice: Owner) -> None:
    async with alice.http(bearer=True) as http:
        answer = await http.get(f"/api/v1/environments/{alice.environment_id}/ports")
        assert answer.status_code == 200, answer.text
        (port,) = answer.json()
        assert port == {"port": PORT, "address": "127.0.0.1", "url": f"{alice.prefix}/"}
        assert (await http.get(port["url"])).json()["name"] == "alice"
