"""What happens to an account takes effect in every service, seen from outside."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.app import eventually
from tests.support.phone import Phone
from tests.support.stack import LocalStack

PASSWORD = "Passw0rd-of-a-test"
WITHIN_S = 60.0


async def ready(socket: ClientConnection) -> None:
    while json.loads(await socket.recv())["type"] != "ready":
        pass


async def close_code(socket: ClientConnection) -> int | None:
    """How the server ends it."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                await socket.recv()
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd is not None else None


async def plan(admin: Phone, phone: Phone, **change: Any) -> None:
    answer = await admin.http.patch(f"/api/v1/users/{phone.account['id']}", json=change)
    assert answer.status_code == 200, answer.text


async def trail(admin: Phone, phone: Phone) -> dict[str, dict[str, Any]]:
    """The newest entry of each action about a user."""
    answer = await admin.http.get("/api/v1/audit", params={"user": phone.account["id"], "limit": 500})
    return {entry["action"]: entry for entry in reversed(answer.json()["entries"])}


def volumes(stack: LocalStack, environment_id: str) -> list[Path]:
    return list((stack.data_dir / "runtime").glob(f"*/*{environment_id}*"))


async def test_deletion_leaves_nothing_but_the_trail(stack: LocalStack, alice: Phone, admin: Phone) -> None:
    environment_id = await alice.create()
    await alice.run(environment_id, "echo precious > /workspace/file")
    _, key = await alice.make_key("read")
    assert volumes(stack, environment_id)
    async with alice.socket(environment_id) as socket:
        await ready(socket)
        gone = await alice.http.request("DELETE", "/api/v1/auth/me", json={"password": PASSWORD})
        assert gone.status_code == 202, gone.text
        assert await close_code(socket) in {4401, 4404}
    for path in ("/api/v1/auth/me", "/api/v1/environments"):
        assert (await alice.http.get(path)).status_code == 401
        assert (await alice.http.get(path, headers={"Authorization": f"Bearer {key}"})).status_code == 401

    async def erased() -> bool:
        return "user.erased" in await trail(admin, alice)

    await eventually(erased, WITHIN_S)
    told = await trail(admin, alice)
    assert told["user.erased"]["details"] == {"environments": 1}
    assert told["user.deleted"]["actor"] == alice.account["id"]
    assert told["user.deleted"]["address"] == "127.0.0.1"
    assert volumes(stack, environment_id) == []
    assert (await admin.http.get("/api/v1/users", params={"q": alice.account["username"]})).json() == []


async def test_deactivation_closes_terminals_and_stops_environments(alice: Phone, admin: Phone) -> None:
    environment_id = await alice.create()
    _, key = await alice.make_key("terminal")
    by_key = Phone(alice.url, alice.http, key, alice.account)
    async with alice.socket(environment_id) as mine, by_key.socket(environment_id) as keys:
        await ready(mine)
        await ready(keys)
        await plan(admin, alice, is_active=False)
        assert await close_code(mine) in {4401, 4409}
        assert await close_code(keys) in {4401, 4409}
    for phone in (alice, by_key):
        with pytest.raises(InvalidStatus) as refused:
            async with phone.socket(environment_id):
                pass
        assert refused.value.response.status_code == 401
    await plan(admin, alice, is_active=True)
    login = {"username_or_email": alice.account["username"], "password": PASSWORD}
    tokens = (await alice.http.post("/api/v1/auth/login", json=login)).json()
    alice.http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    await alice.until(environment_id, "stopped")

    async def is_active_again() -> bool:
        """For envs, and for terminal."""
        started = await alice.http.post(f"/api/v1/environments/{environment_id}/start")
        headers = {"Authorization": f"Bearer {key}"}
        listed = await alice.http.get("/api/v1/terminal/sessions", headers=headers)
        return started.status_code == listed.status_code == 200

    await eventually(is_active_again, WITHIN_S)
    await alice.until(environment_id, "running")
    async with by_key.socket(environment_id) as socket:
        await ready(socket)


async def test_a_smaller_plan_keeps_what_was_used_last_running(alice: Phone, admin: Phone) -> None:
    await plan(admin, alice, subscription_plan="starter")

    async def second() -> bool:
        body = {"name": "second", "template": "python"}
        return (await alice.http.post("/api/v1/environments", json=body)).status_code == 201

    first_id = await alice.create("first")
    # The larger plan is known here by an event.
    await eventually(second, WITHIN_S)
    found = (await alice.http.get("/api/v1/environments")).json()
    second_id = next(item["id"] for item in found if item["name"] == "second")
    await alice.until(second_id, "running")
    await alice.run(first_id, "true")

    async def is_used_last() -> bool:
        """Known by an event, as the plan will be, and on another way than that."""
        used = [(await alice.http.get(f"/api/v1/environments/{item}")).json() for item in (first_id, second_id)]
        first, second = (datetime.fromisoformat(item["last_accessed"] or item["created_at"]) for item in used)
        return first > second

    await eventually(is_used_last, WITHIN_S)
    await plan(admin, alice, subscription_plan="free")
    await alice.until(second_id, "stopped")
    assert (await alice.http.get(f"/api/v1/environments/{first_id}")).json()["status"] == "running"
    refused = await alice.http.post(f"/api/v1/environments/{second_id}/start")
    assert refused.status_code == 403
    assert "free plan" in refused.json()["detail"]
    for environment_id in (first_id, second_id):
        await alice.http.delete(f"/api/v1/environments/{environment_id}")
        await alice.until(environment_id, "terminated")


async def test_a_leaked_refresh_token_ends_its_family_and_the_trail_says_so(alice: Phone, admin: Phone) -> None:
    first = alice.refresh_token
    fresh = await alice.http.post("/api/v1/auth/refresh", json={"refresh_token": first})
    assert fresh.status_code == 200
    thief = await alice.http.post("/api/v1/auth/refresh", json={"refresh_token": first})
    assert thief.status_code == 401
    for token in (alice.token, fresh.json()["access_token"]):
        headers = {"Authorization": f"Bearer {token}"}
        assert (await alice.http.get("/api/v1/environments", headers=headers)).status_code == 401
    again = await alice.http.post("/api/v1/auth/refresh", json={"refresh_token": fresh.json()["refresh_token"]})
    assert again.status_code == 401

    async def told() -> bool:
        entry = (await trail(admin, alice)).get("user.sessions_revoked")
        return entry is not None and entry["details"] == {"reason": "refresh_reuse"}

    await eventually(told, WITHIN_S)
