"""Devices that are signed in, and API keys, on real servers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from libs.common.clock import utc_now
from libs.common.contracts.telemetry import Sighting, sighting_subject
from libs.common.security.api_keys import ApiKey
from tests.integration.auth.conftest import ADMIN, PASSWORD, assert_problem, bearer, me, refresh, register, signed_in
from tests.support.app import eventually

SESSIONS = "/api/v1/auth/sessions"
KEYS = "/api/v1/auth/api-keys"


async def on_device(client: httpx.AsyncClient, device: str | None) -> dict[str, str]:
    body = {"username_or_email": "ada", "password": PASSWORD, "device_name": device}
    tokens: dict[str, str] = (await client.post("/api/v1/auth/login", json=body)).json()
    return tokens


async def make_key(client: httpx.AsyncClient, tokens: dict[str, str], *scopes: str, **more: Any) -> dict[str, Any]:
    body = {"name": "laptop", "scopes": scopes or ["read"], **more}
    answer = await client.post(KEYS, json=body, headers=bearer(tokens))
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.json()
    return key


def by_key(key: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {key['key']}"}


class TestSessions:
    async def test_lists_devices_the_newest_first(self, client: httpx.AsyncClient) -> None:
        await register(client)
        phone, laptop = await on_device(client, "phone"), await on_device(client, None)
        found = (await client.get(SESSIONS, headers=bearer(phone))).json()
        assert [(item["name"], item["current"]) for item in found] == [("python-httpx/0.28.1", False), ("phone", True)]
        assert {item["address"] for item in found} == {"127.0.0.1"}
        first = await client.get(f"{SESSIONS}?limit=1", headers=bearer(laptop))
        assert [item["id"] for item in first.json()] == [found[0]["id"]]
        second = await client.get(first.links["next"]["url"], headers=bearer(laptop))
        assert [item["id"] for item in second.json()] == [found[1]["id"]]
        assert "next" not in second.links

    async def test_signs_one_out(self, client: httpx.AsyncClient) -> None:
        await register(client)
        phone, laptop = await on_device(client, "phone"), await on_device(client, "laptop")
        found = (await client.get(SESSIONS, headers=bearer(phone))).json()
        lost = next(item["id"] for item in found if item["name"] == "laptop")
        assert (await client.delete(f"{SESSIONS}/{lost}", headers=bearer(phone))).status_code == 200
        assert (await me(client, laptop)).status_code == 401
        assert (await refresh(client, laptop)).status_code == 401
        assert (await me(client, phone)).status_code == 200
        gone = await client.delete(f"{SESSIONS}/{lost}", headers=bearer(phone))
        assert_problem(gone, 404, "session_not_found", "Session not found")

    async def test_another_users_is_not_there(self, client: httpx.AsyncClient) -> None:
        await signed_in(client)
        bob = await signed_in(client, "bob")
        (his,) = (await client.get(SESSIONS, headers=bearer(bob))).json()
        ada = await on_device(client, "phone")
        answer = await client.delete(f"{SESSIONS}/{his['id']}", headers=bearer(ada))
        assert answer.status_code == 404
        assert (await me(client, bob)).status_code == 200

    async def test_signs_all_others_out(self, client: httpx.AsyncClient) -> None:
        await register(client)
        phone, laptop = await on_device(client, "phone"), await on_device(client, "laptop")
        assert (await client.delete(f"{SESSIONS}?keep_current=true", headers=bearer(phone))).status_code == 200
        assert (await me(client, laptop)).status_code == 401
        assert (await me(client, phone)).status_code == 200
        assert (await refresh(client, phone)).status_code == 200

    async def test_signs_all_out(self, client: httpx.AsyncClient) -> None:
        await register(client)
        phone, laptop = await on_device(client, "phone"), await on_device(client, "laptop")
        assert (await client.delete(SESSIONS, headers=bearer(phone))).status_code == 200
        for tokens in (phone, laptop):
            assert (await me(client, tokens)).status_code == 401
            assert (await refresh(client, tokens)).status_code == 401
        assert (await me(client, await on_device(client, "phone"))).status_code == 200

    async def test_a_sighting_shows_when_and_where(self, client: httpx.AsyncClient, auth_app: FastAPI) -> None:
        tokens = await signed_in(client)
        (before,) = (await client.get(SESSIONS, headers=bearer(tokens))).json()
        user_id = (await me(client, tokens)).json()["id"]
        later = utc_now() + timedelta(minutes=1)
        seen = Sighting(user_id=user_id, kind="session", id=before["id"], at=later, address="192.0.2.9")
        bus = auth_app.state.platform.bus
        await bus.client.publish(sighting_subject(user_id), seen.model_dump_json().encode())

        async def shown() -> bool:
            (after,) = (await client.get(SESSIONS, headers=bearer(tokens))).json()
            return bool(after["address"] == "192.0.2.9" and after["last_seen"] > before["last_seen"])

        await eventually(shown)


class TestApiKeys:
    async def test_works_as_a_bearer_token_for_reading_only(self, client: httpx.AsyncClient) -> None:
        tokens = await signed_in(client)
        key = await make_key(client, tokens, "read", expires_in_days=7)
        assert (await client.get("/api/v1/auth/me", headers=by_key(key))).json()["username"] == "ada"
        for method, path in (
            ("GET", SESSIONS),
            ("DELETE", SESSIONS),
            ("GET", KEYS),
            ("POST", KEYS),
            ("DELETE", f"{KEYS}/{key['id']}"),
            ("POST", "/api/v1/auth/logout"),
            ("DELETE", "/api/v1/auth/me"),
        ):
            body = {"name": "more", "scopes": ["read"]} if method == "POST" else None
            answer = await client.request(method, path, json=body, headers=by_key(key))
            assert answer.status_code == 403, (method, path)

    async def test_is_shown_once_and_stored_hashed(self, client: httpx.AsyncClient, auth_app: FastAPI) -> None:
        tokens = await signed_in(client)
        key = await make_key(client, tokens, "read", "terminal")
        (listed,) = (await client.get(KEYS, headers=bearer(tokens))).json()
        assert listed == {name: value for name, value in key.items() if name != "key"}
        parsed = ApiKey.parse(key["key"])
        assert parsed is not None
        async for document in auth_app.state.platform.database["api_keys"].find({}):
            assert parsed.secret not in str(document)
            assert document["secret_hash"] == parsed.secret_hash

    async def test_is_void_at_once_when_deleted(self, client: httpx.AsyncClient) -> None:
        tokens = await signed_in(client)
        key = await make_key(client, tokens)
        assert (await client.get("/api/v1/auth/me", headers=by_key(key))).status_code == 200
        assert (await client.delete(f"{KEYS}/{key['id']}", headers=bearer(tokens))).status_code == 200
        answer = await client.get("/api/v1/auth/me", headers=by_key(key))
        assert_problem(answer, 401, "unauthenticated", "The API key is unknown or was revoked")
        assert (await client.delete(f"{KEYS}/{key['id']}", headers=bearer(tokens))).status_code == 404

    async def test_goes_on_when_its_owner_signs_out_everywhere(self, client: httpx.AsyncClient) -> None:
        tokens = await signed_in(client)
        key = await make_key(client, tokens)
        assert (await client.get("/api/v1/auth/me", headers=by_key(key))).status_code == 200
        await client.delete(SESSIONS, headers=bearer(tokens))
        assert (await client.get("/api/v1/auth/me", headers=by_key(key))).status_code == 200

    async def test_rests_while_its_owner_is_deactivated(self, client: httpx.AsyncClient) -> None:
        boss = bearer(await signed_in(client, ADMIN, new=False))
        tokens = await signed_in(client)
        user_id = (await me(client, tokens)).json()["id"]
        key = await make_key(client, tokens)
        for is_active, status in ((False, 401), (True, 200)):
            await client.patch(f"/api/v1/users/{user_id}", json={"is_active": is_active}, headers=boss)

            async def answers(wanted: int = status) -> bool:
                return (await client.get("/api/v1/auth/me", headers=by_key(key))).status_code == wanted

            await eventually(answers)

    async def test_opens_the_admin_api_for_administrators_with_that_scope(self, client: httpx.AsyncClient) -> None:
        boss = await signed_in(client, ADMIN, new=False)
        for scope, status in (("read", 403), ("admin", 200)):
            key = await make_key(client, boss, scope)
            assert (await client.get("/api/v1/users", headers=by_key(key))).status_code == status
        tokens = await signed_in(client)
        body = {"name": "mine", "scopes": ["admin"]}
        answer = await client.post(KEYS, json=body, headers=bearer(tokens))
        assert_problem(answer, 403, "scope_not_allowed", "Only an administrator can make a key with the scope 'admin'")

    @pytest.mark.parametrize(
        "body",
        [
            {"name": "", "scopes": ["read"]},
            {"name": "  ", "scopes": ["read"]},
            {"name": "n", "scopes": []},
            {"name": "n", "scopes": ["everything"]},
            {"name": "n", "scopes": ["read"], "expires_in_days": 0},
            {"name": "n", "scopes": ["read"], "expires_in_days": 100_000},
            {"scopes": ["read"]},
        ],
    )
    async def test_bad_input_is_told(self, client: httpx.AsyncClient, body: dict[str, Any]) -> None:
        tokens = await signed_in(client)
        assert (await client.post(KEYS, json=body, headers=bearer(tokens))).status_code == 422

    async def test_last_use_is_shown(self, client: httpx.AsyncClient) -> None:
        tokens = await signed_in(client)
        key = await make_key(client, tokens)
        assert (await client.get(KEYS, headers=bearer(tokens))).json()[0]["last_used_at"] is None
        await client.get("/api/v1/auth/me", headers=by_key(key))

        async def shown() -> bool:
            (listed,) = (await client.get(KEYS, headers=bearer(tokens))).json()
            return listed["last_used_at"] is not None and listed["last_address"] == "127.0.0.1"

        await eventually(shown)
