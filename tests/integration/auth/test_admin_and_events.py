"""The admin API, the events on the stream, the first administrator and the commands, on real servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from nats.js import JetStreamContext
from typer.testing import CliRunner

from libs.common.contracts.events import Event
from libs.common.messaging.outbox import PENDING
from libs.common.messaging.streams import EVENTS_STREAM
from services.auth.commands import app as commands
from services.auth.main import create_app
from services.auth.settings import AuthSettings
from tests.integration.auth.conftest import ADMIN, PASSWORD, bearer, login, me, refresh, register, signed_in
from tests.support.app import eventually, running_app

MakeAuthSettings = Callable[..., AuthSettings]


async def story(app: FastAPI, user_id: str, count: int) -> list[Event]:
    """The first `count` events about a user, in order."""
    js: JetStreamContext = app.state.platform.bus.jetstream
    subscription = await js.pull_subscribe(f"devpocket.user.{user_id}.>", stream=EVENTS_STREAM)
    found: list[Event] = []
    while len(found) < count:
        messages = await subscription.fetch(count - len(found), timeout=30)
        found += [Event.model_validate_json(message.data) for message in messages]
    return found


def names(events: list[Event]) -> list[str]:
    return [event.nats_subject.rsplit(".", 1)[1] for event in events]


class TestUsersApi:
    @pytest.mark.parametrize(("method", "path"), [("GET", "/api/v1/users"), ("PATCH", "/api/v1/users/x")])
    async def test_is_for_administrators(self, client: httpx.AsyncClient, method: str, path: str) -> None:
        assert (await client.request(method, path, json={})).status_code == 401
        tokens = await signed_in(client)
        answer = await client.request(method, path, json={}, headers=bearer(tokens))
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")

    async def test_finds_in_pages(self, client: httpx.AsyncClient) -> None:
        boss = bearer(await signed_in(client, ADMIN, new=False))
        for number in range(5):
            await register(client, f"user-{number}")
        seen: list[str] = []
        url = "/api/v1/users?q=USER-&limit=2"
        while url:
            answer = await client.get(url, headers=boss)
            assert answer.status_code == 200
            seen += [user["username"] for user in answer.json()]
            url = answer.links.get("next", {}).get("url", "")
        assert seen == [f"user-{number}" for number in range(5)]
        everything = (await client.get("/api/v1/users/", headers=boss)).json()
        assert len(everything) == 6
        assert "hash" not in json.dumps(everything)
        assert (await client.get("/api/v1/users?q=.*", headers=boss)).json() == []

    @pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "cursor=x", f"q={'x' * 101}"])
    async def test_bad_queries(self, client: httpx.AsyncClient, query: str) -> None:
        boss = bearer(await signed_in(client, ADMIN, new=False))
        assert (await client.get(f"/api/v1/users?{query}", headers=boss)).status_code == 422

    async def test_changes_the_plan(self, client: httpx.AsyncClient) -> None:
        boss = bearer(await signed_in(client, ADMIN, new=False))
        tokens = await signed_in(client)
        user_id = (await me(client, tokens)).json()["id"]
        answer = await client.patch(f"/api/v1/users/{user_id}", json={"subscription_plan": "pro"}, headers=boss)
        assert (answer.status_code, answer.json()["subscription_plan"]) == (200, "pro")
        assert (await me(client, tokens)).json()["subscription_plan"] == "pro"

    async def test_deactivates_and_lets_in_again(self, client: httpx.AsyncClient) -> None:
        boss = bearer(await signed_in(client, ADMIN, new=False))
        tokens = await signed_in(client)
        url = f"/api/v1/users/{(await me(client, tokens)).json()['id']}"
        assert (await client.patch(url, json={"is_active": False}, headers=boss)).json()["is_active"] is False
        assert (await me(client, tokens)).status_code == 401
        assert (await refresh(client, tokens)).status_code == 401
        refused = await login(client)
        assert (refused.status_code, refused.json()["code"]) == (401, "account_inactive")
        await client.patch(url, json={"is_active": True}, headers=boss)
        assert (await refresh(client, tokens)).status_code == 401
        assert (await login(client)).status_code == 200

    async def test_unlocks(self, client: httpx.AsyncClient) -> None:
        boss = bearer(await signed_in(client, ADMIN, new=False))
        user_id = (await register(client)).json()["id"]
        for _ in range(5):
            await login(client, password="wrong")
        assert (await login(client)).json()["code"] == "account_locked"
        await client.patch(f"/api/v1/users/{user_id}", json={"unlock": True}, headers=boss)
        assert (await login(client)).status_code == 200

    @pytest.mark.parametrize(
        ("user", "body", "status"),
        [
            ("nobody", {"is_active": True}, 404),
            ("self", {"is_active": False}, 409),
            ("self", {"subscription_plan": "free"}, 409),
            ("self", {"subscription_plan": "gold"}, 422),
            ("self", {"password_hash": "x"}, 422),
            ("self", {}, 200),
        ],
    )
    async def test_refuses(self, client: httpx.AsyncClient, user: str, body: dict[str, Any], status: int) -> None:
        tokens = await signed_in(client, ADMIN, new=False)
        user_id = (await me(client, tokens)).json()["id"] if user == "self" else user
        answer = await client.patch(f"/api/v1/users/{user_id}", json=body, headers=bearer(tokens))
        assert answer.status_code == status


class TestEvents:
    async def test_tell_the_story_without_secrets(self, client: httpx.AsyncClient, auth_app: FastAPI) -> None:
        boss = bearer(await signed_in(client, ADMIN, new=False))
        answer = await register(client)
        user_id, request_id = answer.json()["id"], answer.headers["X-Request-ID"]
        tokens = await signed_in(client, new=False)
        await client.patch(f"/api/v1/users/{user_id}", json={"subscription_plan": "starter"}, headers=boss)
        events = await story(auth_app, user_id, 3)
        # The event is on the stream before logout answers.
        await client.post("/api/v1/auth/logout", headers=bearer(tokens))
        js: JetStreamContext = auth_app.state.platform.bus.jetstream
        last = await js.get_last_msg(EVENTS_STREAM, f"devpocket.user.{user_id}.sessions_revoked")
        for _ in range(5):
            await login(client, password="wrong")
        events = await story(auth_app, user_id, 10)
        assert names(events) == [
            *("registered", "logged_in", "plan_changed", "sessions_revoked"),
            *["login_failed"] * 5,
            "locked",
        ]
        assert Event.model_validate_json(last.data or b"").id == events[3].id
        assert events[0].correlationid == request_id
        assert events[0].actor == events[1].actor == events[3].actor == user_id
        assert events[2].actor != user_id
        assert events[2].data["plan"] == "starter"
        for event in events:
            text = event.model_dump_json()
            assert "example.com" not in text
            assert "$2b$" not in text
            assert PASSWORD not in text
            assert tokens["refresh_token"] not in text
            event.payload()

    async def test_leave_nothing_behind(self, client: httpx.AsyncClient, auth_app: FastAPI) -> None:
        tokens = await signed_in(client)
        user_id = (await me(client, tokens)).json()["id"]
        await client.post("/api/v1/auth/logout", headers=bearer(tokens))
        await auth_app.state.platform.outbox.sweep()
        for name in ("users", "sessions"):
            query = {f"{PENDING}.id": {"$exists": True}}
            assert await auth_app.state.platform.database[name].count_documents(query) == 0
        # Those of the account in order; a session has a document of its own.
        told = names(await story(auth_app, user_id, 3))
        assert [name for name in told if name != "sessions_revoked"] == ["registered", "logged_in"]
        assert "sessions_revoked" in told


class TestFirstAdmin:
    async def test_is_there_after_every_start_with_the_first_password(
        self, make_auth_settings: MakeAuthSettings
    ) -> None:
        for secret in (PASSWORD, "Another-Horse-2"):
            async with running_app(create_app(make_auth_settings(admin_email=ADMIN, admin_password=secret))) as client:
                tokens = await signed_in(client, ADMIN, new=False)
                user = (await me(client, tokens)).json()
                assert (user["username"], user["subscription_plan"], user["is_verified"]) == ("boss", "admin", True)

    async def test_unusable_values_are_logged_and_the_service_starts(
        self, make_auth_settings: MakeAuthSettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        app = create_app(make_auth_settings(admin_email=ADMIN, admin_password="weak"))
        async with running_app(app) as client:
            assert (await client.get("/health/ready")).status_code == 200
        assert "Password must be at least 8 characters long" in capsys.readouterr().err


class TestCommands:
    @pytest.fixture
    def devpocket(self, make_auth_settings: MakeAuthSettings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
        """Runs `devpocket users …` in a thread, as it has a loop of its own; settings come from the environment."""
        settings = make_auth_settings()
        monkeypatch.setenv("MONGODB_URL", settings.mongodb_url.get_secret_value())
        monkeypatch.setenv("REDIS_URL", settings.redis_url.get_secret_value())
        monkeypatch.setenv("DATABASE_NAME", settings.database_name)
        monkeypatch.setenv("SECRET_KEY", settings.secret_key.get_secret_value())
        monkeypatch.setenv("PASSWORD_HASH_COST", "4")

        async def run(*arguments: str, secret: str | None = PASSWORD) -> Any:
            env = {"DEVPOCKET_ADMIN_PASSWORD": secret}
            return await asyncio.to_thread(CliRunner().invoke, commands, list(arguments), env=env)

        return run

    async def test_an_administrator_made_beside_the_running_service(
        self, client: httpx.AsyncClient, auth_app: FastAPI, devpocket: Callable[..., Any]
    ) -> None:
        made = await devpocket("create-admin", "--email", "root@example.com", "--username", "root", "--json")
        assert made.exit_code == 0, made.output
        user = json.loads(made.stdout)
        assert user["subscription_plan"] == "admin"
        tokens = await signed_in(client, "root", new=False)
        assert (await client.get("/api/v1/users", headers=bearer(tokens))).status_code == 200
        events = await story(auth_app, user["id"], 1)
        assert (names(events), events[0].data["plan"]) == (["registered"], "admin")

    async def test_refusals_are_sentences(self, client: httpx.AsyncClient, devpocket: Callable[..., Any]) -> None:
        for arguments, secret, message in (
            (("--email", ADMIN), PASSWORD, "Email already registered"),
            (("--email", "new@example.com"), "weak", "Password must be at least 8 characters long"),
            (("--email", "nonsense"), PASSWORD, "Not a valid email address"),
        ):
            result = await devpocket("create-admin", *arguments, secret=secret)
            assert result.exit_code == 1
            assert message in result.stderr
            assert "Traceback" not in result.output

    async def test_lists_and_changes(self, client: httpx.AsyncClient, devpocket: Callable[..., Any]) -> None:
        tokens = await signed_in(client)
        result = await devpocket("list", "--json")
        assert [user["username"] for user in json.loads(result.stdout)] == ["boss", "ada"]
        result = await devpocket("set-plan", "ada", "pro")
        assert result.exit_code == 0
        assert (await me(client, tokens)).json()["subscription_plan"] == "pro"
        for _ in range(5):
            await login(client, password="wrong")
        assert (await devpocket("unlock", "ADA@example.com")).exit_code == 0
        assert (await login(client)).status_code == 200
        assert (await devpocket("deactivate", "ada")).exit_code == 0
        assert (await login(client)).json()["code"] == "account_inactive"
        result = await devpocket("set-plan", "nobody", "pro")
        assert (result.exit_code, result.stderr.strip()) == (1, "User not found")

    async def test_rotates_keys(self, client: httpx.AsyncClient, devpocket: Callable[..., Any]) -> None:
        result = await devpocket("rotate-keys", "--json")
        assert result.exit_code == 0, result.output
        assert set(json.loads(result.stdout)) == {"kid", "signs_from"}

    async def test_deletes_an_account_and_reads_the_trail(
        self, client: httpx.AsyncClient, devpocket: Callable[..., Any]
    ) -> None:
        user_id = (await register(client)).json()["id"]
        assert (await devpocket("delete", "ada", "--yes")).exit_code == 0
        assert (await login(client)).status_code == 401
        shown: list[dict[str, Any]] = []

        async def told() -> bool:
            nonlocal shown
            shown = json.loads((await devpocket("audit", "--user", user_id, "--json")).stdout)
            return "user.deleted" in {entry["action"] for entry in shown}

        await eventually(told)
        assert [entry["actor"] for entry in shown if entry["action"] == "user.deleted"] == ["cli"]
        plain = await devpocket("audit", "--action", "user.registered")
        assert "user.registered" in plain.stdout
        assert "127.0.0.1" in plain.stdout
