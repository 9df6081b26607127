"""The auth service on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from services.auth.main import create_app
from services.auth.settings import AuthSettings
from tests.support.app import running_app
from tests.support.servers import Servers

PASSWORD = "Correct-Horse-1"
ADMIN = "boss@company.local"


@pytest.fixture
def make_auth_settings(clean_backend: Servers, make_settings: Callable[..., Any]) -> Callable[..., AuthSettings]:
    """Settings with the cheapest hash."""

    def make(**changes: Any) -> AuthSettings:
        settings: AuthSettings = make_settings(AuthSettings, **{"password_hash_cost": 4, **changes})
        return settings

    return make


@pytest.fixture
def auth_app(make_auth_settings: Callable[..., AuthSettings]) -> FastAPI:
    """The service with a first administrator."""
    return create_app(make_auth_settings(admin_email=ADMIN, admin_password=PASSWORD))


@pytest.fixture
async def client(auth_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to `auth_app`."""
    async with running_app(auth_app) as client:
        yield client


async def register(client: httpx.AsyncClient, username: str = "ada", **changes: Any) -> httpx.Response:
    """POST /register with values that are fine unless changed."""
    body = {"username": username, "email": f"{username}@example.com", "password": PASSWORD, **changes}
    return await client.post("/api/v1/auth/register", json=body)


async def login(client: httpx.AsyncClient, name: str = "ada", password: str = PASSWORD) -> httpx.Response:
    """POST /login."""
    return await client.post("/api/v1/auth/login", json={"username_or_email": name, "password": password})


async def refresh(client: httpx.AsyncClient, tokens: dict[str, str]) -> httpx.Response:
    """POST /refresh."""
    return await client.post("/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})


async def me(client: httpx.AsyncClient, tokens: dict[str, str]) -> httpx.Response:
    """GET /me."""
    return await client.get("/api/v1/auth/me", headers=bearer(tokens))


def bearer(tokens: dict[str, str]) -> dict[str, str]:
    """The Authorization header."""
    return {"Authorization": f"Bearer {tokens['access_token']}"}


async def signed_in(client: httpx.AsyncClient, name: str = "ada", *, new: bool = True) -> dict[str, str]:
    """Tokens of a user, who is registered first if `new`."""
    if new:
        assert (await register(client, name)).status_code == 201
    answer = await login(client, name)
    assert answer.status_code == 200, answer.text
    tokens: dict[str, str] = answer.json()
    return tokens


def assert_problem(answer: httpx.Response, status: int, code: str, detail: str) -> None:
    """The common shape of errors, with this content."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"], body["detail"]) == (status, code, detail)
    assert body["request_id"] == answer.headers["X-Request-ID"]
