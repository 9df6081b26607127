"""Who may no longer look is out with the answer that says so, on any replica, with the right code."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.support.phone import Phone, read_until

# A second would do on a machine that does nothing else.
_AT_ONCE_S = 10.0

log = logging.getLogger(__name__)

Ending = Callable[[Phone, Phone, str], Awaitable[object]]


async def logout(alice: Phone, admin: Phone, environment_id: str) -> None:
    assert (await alice.http.post("/api/v1/auth/logout")).is_success


async def deletion(alice: Phone, admin: Phone, environment_id: str) -> None:
    assert (await alice.http.delete(f"/api/v1/environments/{environment_id}")).is_success


async def deactivation(alice: Phone, admin: Phone, environment_id: str) -> None:
    changed = await admin.http.patch(f"/api/v1/users/{alice.account['id']}", json={"is_active": False})
    assert changed.is_success, changed.text


async def open_everything(
    phones: dict[str, Phone], environment_id: str, stack: AsyncExitStack
) -> dict[str, ClientConnection]:
    """One shell, and the log, in each of these ways."""
    sockets, query = {}, ""
    for name, phone in phones.items():
        shell = await stack.enter_async_context(phone.socket(environment_id, query))
        session_id = json.loads(await shell.recv())["session_id"]
        if not query:
            query = f"&session={session_id}"
            await shell.send(json.dumps({"type": "input", "data": "echo =$((6*7))=\n"}))
        await read_until(shell, "=42=")
        sockets[f"terminal {name}"] = shell
    for name, phone in list(phones.items())[-2:]:
        sockets[f"log {name}"] = await stack.enter_async_context(phone.socket(environment_id, "&follow=true", "logs"))
    return sockets


async def closed(socket: ClientConnection) -> tuple[int | None, str]:
    """The close code, and the code of the error before it."""
    code = ""
    with suppress(ConnectionClosed):
        async for message in socket:
            frame = json.loads(message)
            code = frame["code"] if frame["type"] == "error" else code
    return socket.close_code, code


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (logout, (4401, "session_revoked")),
        (deactivation, (4401, "session_revoked")),
        (deletion, (4404, "environment_deleted")),
    ],
)
async def test_whatever_is_open_closes(
    alice: Phone, at_replicas: tuple[Phone, Phone], admin: Phone, ending: Ending, expected: tuple[int, str]
) -> None:
    environment_id = await alice.create(template="ubuntu")
    phones = {"through the gateway": alice, "at the one replica": at_replicas[0], "at the other": at_replicas[1]}
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as open_ones:
        sockets = await open_everything(phones, environment_id, open_ones)
        await ending(alice, admin, environment_id)
        answered = loop.time()
        async with asyncio.timeout(_AT_ONCE_S):
            found = await asyncio.gather(*map(closed, sockets.values()))
        log.info("%s: %.0f ms after the answer", ending.__name__, (loop.time() - answered) * 1000)
    assert dict(zip(sockets, found, strict=True)) == dict.fromkeys(sockets, expected)
