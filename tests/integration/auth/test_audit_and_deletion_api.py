"""The audit trail and account deletion, on real servers."""

from __future__ import annotations

import json
from typing import Any

import httpx
from fastapi import FastAPI

from libs.common.context import Cause
from libs.common.contracts.events import Event, RuntimeRunning
from libs.common.contracts.users import OwnerEmptied
from libs.common.messaging.streams import EVENTS_STREAM
from tests.integration.auth.conftest import ADMIN, PASSWORD, bearer, login, me, register, signed_in
from tests.support.app import eventually

AUDIT = "/api/v1/audit"


async def publish(app: FastAPI, data: Any, source: str) -> None:
    """As another service does."""
    event = Event.new(data, subject=data.aggregate_id, source=source, cause=Cause())
    headers = {"Nats-Msg-Id": event.id}
    js = app.state.platform.bus.jetstream
    payload = event.model_dump_json(exclude_none=True).encode()
    await js.publish(event.nats_subject, payload, stream=EVENTS_STREAM, headers=headers)


async def entries(client: httpx.AsyncClient, boss: dict[str, str], **query: str | int) -> list[dict[str, Any]]:
    answer = await client.get(AUDIT, params=query, headers=boss)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["entries"]
    return found


async def wait_for(client: httpx.AsyncClient, boss: dict[str, str], action: str, **query: str) -> dict[str, Any]:
    """The newest entry of this action, once it is there."""
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        nonlocal found
        found = await entries(client, boss, action=action, **query)
        return bool(found)

    await eventually(there)
    return found[0]


class TestAudit:
    async def test_tells_who_did_what_from_where(self, client: httpx.AsyncClient) -> None:
        boss = bearer(await signed_in(client, ADMIN, new=False))
        boss_id = (await client.get("/api/v1/auth/me", headers=boss)).json()["id"]
        tokens = await signed_in(client)
        user_id = (await me(client, tokens)).json()["id"]
        answer = await client.patch(f"/api/v1/users/{user_id}", json={"subscription_plan": "pro"}, headers=boss)
        entry = await wait_for(client, boss, "user.plan_changed", user=user_id)
        assert (entry["actor"], entry["address"], entry["user_id"]) == (boss_id, "127.0.0.1", user_id)
        assert entry["details"] == {"plan": "pro"}
        assert entry["correlation_id"] == answer.headers["X-Request-ID"]
        mine = await entries(client, boss, user=user_id)
        assert [item["action"] for item in mine] == ["user.plan_changed", "user.logged_in", "user.registered"]
        assert [item["action"] for item in await entries(client, boss, actor=boss_id, action="user.plan_changed")] == [
            "user.plan_changed"
        ]
        assert await entries(client, boss, user=user_id, since="2h", until="1h") == []

    async def test_pages_and_export_hold_the_same(self, client: httpx.AsyncClient) -> None:
        boss = bearer(await signed_in(client, ADMIN, new=False))
        for number in range(4):
            await register(client, f"user-{number}")

        async def all_there() -> bool:
            return len(await entries(client, boss, action="user.registered")) == 5

        await eventually(all_there)
        paged: list[str] = []
        cursor: str | None = None
        while True:
            query: dict[str, Any] = {"action": "user.registered", "limit": 2, **({"cursor": cursor} if cursor else {})}
            page = (await client.get(AUDIT, params=query, headers=boss)).json()
            paged += [entry["id"] for entry in page["entries"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        exported = await client.get(f"{AUDIT}/export", params={"action": "user.registered"}, headers=boss)
        assert exported.headers["content-type"].startswith("application/x-ndjson")
        lines = [json.loads(line) for line in exported.text.splitlines()]
        assert [line["id"] for line in lines] == list(reversed(paged))
        assert len(paged) == 5

    async def test_wrong_passwords_are_there(self, client: httpx.AsyncClient) -> None:
        boss = bearer(await signed_in(client, ADMIN, new=False))
        await register(client)
        await login(client, password="wrong")
        entry = await wait_for(client, boss, "user.login_failed")
        assert (entry["address"], entry["details"]) == ("127.0.0.1", {"failures": 1})

    async def test_what_the_runtime_reports_is_not(self, client: httpx.AsyncClient, auth_app: FastAPI) -> None:
        boss = bearer(await signed_in(client, ADMIN, new=False))
        report = RuntimeRunning(environment_id="e1", user_id="u1", generation=1, runtime="local")
        await publish(auth_app, report, "orchestrator")
        user_id = (await register(client)).json()["id"]
        await wait_for(client, boss, "user.registered", user=user_id)
        assert not [entry for entry in await entries(client, boss) if entry["subject"] == "e1"]

    async def test_is_for_administrators(self, client: httpx.AsyncClient) -> None:
        tokens = await signed_in(client)
        for path in (AUDIT, f"{AUDIT}/export"):
            assert (await client.get(path)).status_code == 401
            assert (await client.get(path, headers=bearer(tokens))).status_code == 403

    async def test_a_bad_time_is_told(self, client: httpx.AsyncClient) -> None:
        boss = bearer(await signed_in(client, ADMIN, new=False))
        answer = await client.get(AUDIT, params={"since": "yesterday"}, headers=boss)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_time")


class TestDeletion:
    async def test_everything_goes_and_the_trail_says_so(self, client: httpx.AsyncClient, auth_app: FastAPI) -> None:
        boss = bearer(await signed_in(client, ADMIN, new=False))
        tokens = await signed_in(client)
        user_id = (await me(client, tokens)).json()["id"]
        body = {"name": "laptop", "scopes": ["read"]}
        key = (await client.post("/api/v1/auth/api-keys", json=body, headers=bearer(tokens))).json()["key"]
        refused = await client.request("DELETE", "/api/v1/auth/me", headers=bearer(tokens))
        assert (refused.status_code, refused.json()["code"]) == (403, "incorrect_password")
        gone = await client.request("DELETE", "/api/v1/auth/me", json={"password": PASSWORD}, headers=bearer(tokens))
        assert (gone.status_code, gone.json()) == (202, {"message": "Account deletion started"})
        assert (await me(client, tokens)).status_code == 401
        assert (await me(client, {"access_token": key})).status_code == 401
        assert (await login(client)).status_code == 401
        assert (await client.get("/api/v1/users?q=ada", headers=boss)).json() == []

        database = auth_app.state.platform.database

        async def nothing_left() -> bool:
            counts = [await database[name].count_documents({"user_id": user_id}) for name in ("sessions", "api_keys")]
            return not any(counts)

        await eventually(nothing_left)
        await publish(auth_app, OwnerEmptied(user_id=user_id, environments=3), "envs")
        entry = await wait_for(client, boss, "user.erased", user=user_id)
        assert entry["details"] == {"environments": 3}
        for action in ("user.deleted", "owner.emptied"):
            await wait_for(client, boss, action, user=user_id)
        told = [entry["action"] for entry in await entries(client, boss, user=user_id)]
        assert told.count("user.deleted") == told.count("user.erased") == told.count("owner.emptied") == 1
        assert (await register(client)).status_code == 201

    async def test_an_administrator_deletes_others_only(self, client: httpx.AsyncClient) -> None:
        boss = bearer(await signed_in(client, ADMIN, new=False))
        boss_id = (await client.get("/api/v1/auth/me", headers=boss)).json()["id"]
        user_id = (await register(client)).json()["id"]
        assert (await client.delete(f"/api/v1/users/{boss_id}", headers=boss)).status_code == 409
        assert (await client.delete(f"/api/v1/users/{user_id}", headers=boss)).status_code == 202
        assert (await client.delete(f"/api/v1/users/{user_id}", headers=boss)).status_code == 404
        patched = await client.patch(f"/api/v1/users/{user_id}", json={"is_active": True}, headers=boss)
        assert patched.status_code == 404
