"""The contract that clients of the original monolith rely on: paths, fields, codes, messages."""

from __future__ import annotations

import secrets
from typing import Any

import httpx
import pytest

from tests.support.app import eventually
from tests.support.phone import Phone
from tests.support.stack import LocalStack

_USER_FIELDS = {
    *("id", "username", "email", "full_name", "is_active", "is_verified", "avatar_url", "subscription_plan"),
    *("created_at", "last_login"),
}
_ENVIRONMENT_FIELDS = {
    *("id", "user_id", "name", "description", "template", "status", "status_reason", "resources", "external_url"),
    *("web_port", "created_at", "updated_at", "last_accessed", "cpu_usage", "memory_usage", "storage_usage"),
}


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"title", "status", "detail", "code", "request_id"} <= set(body)
    return body


class TestAccounts:
    async def test_a_user_has_the_fields_of_old(self, alice: Phone) -> None:
        assert set(alice.account) == _USER_FIELDS

    async def test_register_says_what_is_taken(self, alice: Phone) -> None:
        fresh = f"user-{secrets.token_hex(5)}"
        body = {"username": fresh, "email": alice.account["email"], "password": "Passw0rd"}
        assert problem(await alice.http.post("/api/v1/auth/register", json=body), 400)["detail"] == (
            "Email already registered"
        )
        body = {"username": alice.account["username"], "email": f"{fresh}@example.com", "password": "Passw0rd"}
        assert problem(await alice.http.post("/api/v1/auth/register", json=body), 400)["detail"] == (
            "Username already taken"
        )

    async def test_a_weak_password_is_422_and_says_why(self, alice: Phone) -> None:
        body = {"username": "weakling", "email": "weak@example.com", "password": "password1"}
        answer = problem(await alice.http.post("/api/v1/auth/register", json=body), 422)
        assert "uppercase" in answer["detail"]
        assert answer["errors"]

    async def test_a_wrong_password_and_an_unknown_user_look_alike(self, alice: Phone) -> None:
        details = []
        for name in (alice.account["username"], "nobody-at-all"):
            body = {"username_or_email": name, "password": "Wr0ng-password"}
            details.append(problem(await alice.http.post("/api/v1/auth/login", json=body), 401)["detail"])
        assert details == ["Incorrect username/email or password"] * 2

    async def test_logout_is_heard_by_every_service_at_once(self, alice: Phone) -> None:
        answer = await alice.http.post("/api/v1/auth/logout")
        assert answer.json() == {"message": "Successfully logged out"}
        for path in ("/api/v1/auth/me", "/api/v1/environments", "/api/v1/regions"):
            problem(await alice.http.get(path), 401)
        problem(await alice.http.post("/api/v1/ws/tickets", json={"environment_id": "x", "kind": "terminal"}), 401)


class TestEnvironments:
    async def test_the_life_of_an_environment(self, alice: Phone) -> None:
        body = {"name": "My-Box", "template": "node"}
        created = await alice.http.post("/api/v1/environments/", json=body)
        assert created.status_code == 201
        environment = created.json()
        assert set(environment) >= _ENVIRONMENT_FIELDS
        assert (environment["status"], environment["template"], environment["name"]) == ("creating", "nodejs", "my-box")
        path = f"/api/v1/environments/{environment['id']}"
        await alice.until(environment["id"], "running")
        for verb, said, then in (
            ("stop", "Environment stopped successfully", "stopped"),
            ("start", "Environment started successfully", "running"),
            ("restart", "Environment restarted successfully", "running"),
        ):
            answer = await alice.http.post(f"{path}/{verb}")
            assert (answer.status_code, answer.json()["message"]) == (200, said)
            await alice.until(environment["id"], then)
        answer = await alice.http.delete(path)
        assert (answer.status_code, answer.json()["message"]) == (200, "Environment deletion started")
        await alice.until(environment["id"], "terminated")
        assert problem(await alice.http.get(path), 404)["detail"] == "Environment not found"

    async def test_bad_wishes_are_refused_in_words_that_help(self, alice: Phone) -> None:
        for body, status in (
            ({"name": "x", "template": "cobol"}, 422),
            ({"name": "no spaces", "template": "python"}, 422),
            ({"name": "", "template": "python"}, 422),
            ({"template": "python"}, 422),
            ({"name": "big", "template": "python", "resources": {"cpu": "8", "memory": "1Gi", "storage": "1Gi"}}, 403),
        ):
            answer = problem(await alice.http.post("/api/v1/environments", json=body), status)
            assert len(answer["detail"]) > 10

    async def test_a_full_plan_is_403(self, alice: Phone) -> None:
        environment_id = await alice.create()
        answer = await alice.http.post("/api/v1/environments", json={"name": "two", "template": "python"})
        assert "free" in problem(answer, 403)["detail"]
        await alice.http.delete(f"/api/v1/environments/{environment_id}")

    async def test_an_admin_changes_a_plan_and_more_fits(self, admin: Phone, alice: Phone) -> None:
        await alice.create("one")
        problem(await alice.http.patch(f"/api/v1/users/{alice.account['id']}", json={"subscription_plan": "pro"}), 403)
        answer = await admin.http.patch(f"/api/v1/users/{alice.account['id']}", json={"subscription_plan": "starter"})
        assert answer.status_code == 200

        async def fits() -> bool:
            """Once the plan has travelled to the quota by an event."""
            return (await alice.http.post("/api/v1/environments", json={"name": "two"})).status_code == 201

        await eventually(fits)
        listed = await alice.http.get("/api/v1/environments?limit=1")
        assert len(listed.json()) == 1
        assert 'rel="next"' in listed.headers["link"]


class TestGateway:
    @pytest.mark.parametrize("path", ["/health", "/health/ready", "/health/live", "/openapi.json", "/docs", "/redoc"])
    async def test_pages_answer(self, stack: LocalStack, path: str) -> None:
        async with httpx.AsyncClient(base_url=stack.url) as client:
            answer = await client.get(path)
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"

    async def test_metrics_of_services_stay_inside(self, stack: LocalStack) -> None:
        async with httpx.AsyncClient(base_url=stack.url) as client:
            problem(await client.get("/metrics"), 404)

    async def test_large_bodies_are_refused(self, alice: Phone) -> None:
        answer = await alice.http.post("/api/v1/environments", content=b"x" * (11 << 20))
        assert problem(answer, 413)["code"] == "content_too_large"
