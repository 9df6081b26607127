"""WebSockets of applications in workspaces."""

from __future__ import annotations

import asyncio

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.integration.terminal.harness import TIMEOUT_S
from tests.integration.terminal.preview.harness import PORT, Owner, headers_of, said


async def test_messages_go_both_ways(alice: Owner) -> None:
    async with alice.socket("/chat?room=1", additional_headers={"Cookie": await alice.cookie()}) as socket:
        told = await said(socket)
        assert (told["name"], told["path"]) == ("alice", "/chat?room=1")
        for message in ("grüße", b"\x00\xff", "x" * 200_000, ""):
            await socket.send(message)
            assert await asyncio.wait_for(socket.recv(), TIMEOUT_S) == message


async def test_the_application_sees_neither_cookie_nor_ticket_nor_token(alice: Owner) -> None:
    cookie = f"other=1; {await alice.cookie()}"
    async with alice.socket(additional_headers={"Cookie": cookie}) as socket:
        told = headers_of(await said(socket))
    assert told["cookie"] == "other=1"
    async with alice.socket(additional_headers={"Authorization": f"Bearer {alice.token}"}) as socket:
        assert "authorization" not in headers_of(await said(socket))
    async with alice.socket(f"/?ticket={await alice.ticket()}&a=1") as socket:
        assert (await said(socket))["path"] == "/?a=1"


async def test_the_application_learns_how_it_is_reached(alice: Owner) -> None:
    origin = f"http://{alice.service.address}"
    headers = {"Cookie": await alice.cookie(), "Origin": origin}
    async with alice.socket(additional_headers=headers) as socket:
        told = headers_of(await said(socket))
    assert told["host"] == f"localhost:{PORT}"
    assert told["origin"] == f"http://localhost:{PORT}"
    assert told["x-forwarded-prefix"] == alice.prefix


async def test_it_chooses_the_subprotocol(alice: Owner) -> None:
    offered = [Subprotocol("first"), Subprotocol("second")]
    headers = {"Cookie": await alice.cookie()}
    async with alice.socket(additional_headers=headers, subprotocols=offered) as socket:
        assert socket.subprotocol == "second"


async def test_how_it_closes_is_passed_on(alice: Owner) -> None:
    async with alice.socket(additional_headers={"Cookie": await alice.cookie()}) as socket:
        await said(socket)
        await socket.send("bye")
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), TIMEOUT_S)
        assert (socket.close_code, socket.close_reason) == (4321, "enough")


async def test_it_may_refuse(alice: Owner) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with alice.socket("/denied", additional_headers={"Cookie": await alice.cookie()}):
            pass
    assert refused.value.response.status_code == 403
    assert b'"name": "alice"' in (refused.value.response.body or b"")


async def test_nothing_listens(alice: Owner) -> None:
    prefix = f"/preview/{alice.environment_id}/8124"
    with pytest.raises(InvalidStatus) as refused:
        async with alice.socket(prefix=prefix, additional_headers={"Cookie": await alice.cookie()}):
            pass
    assert refused.value.response.status_code == 502
    assert b"nothing_listens" in (refused.value.response.body or b"")


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:1"])
async def test_pages_of_other_sites_may_not_use_the_cookie(alice: Owner, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with alice.socket(additional_headers={"Cookie": await alice.cookie(), "Origin": origin}):
            pass
    assert refused.value.response.status_code == 403


async def test_a_page_in_the_sandbox_may(alice: Owner) -> None:
    async with alice.socket(additional_headers={"Cookie": await alice.cookie(), "Origin": "null"}) as socket:
        assert (await said(socket))["name"] == "alice"
