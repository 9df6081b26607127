"""Signing in with Google through the API, with real ID tokens and the real adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from services.auth.main import create_app
from services.auth.settings import AuthSettings
from tests.integration.auth.conftest import ADMIN, PASSWORD, assert_problem, bearer, login, me, register
from tests.support.app import running_app
from tests.support.google import CLIENT_ID, CertificateServer, SigningKey, certificate_server, google_token


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey("a1")


@pytest.fixture
def server(key: SigningKey) -> Iterator[CertificateServer]:
    with certificate_server(key) as server:
        yield server


@pytest.fixture
async def client(
    make_auth_settings: Callable[..., AuthSettings], server: CertificateServer
) -> AsyncIterator[httpx.AsyncClient]:
    settings = make_auth_settings(
        google_client_id=CLIENT_ID, google_certs_url=server.url, admin_email=ADMIN, admin_password=PASSWORD
    )
    async with running_app(create_app(settings)) as client:
        yield client


async def with_google(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post("/api/v1/auth/google", json={"token": token})


async def google_user(client: httpx.AsyncClient, token: str) -> dict[str, Any]:
    """The profile of who signs in with `token`."""
    answer = await with_google(client, token)
    assert answer.status_code == 200, answer.text
    user: dict[str, Any] = (await me(client, answer.json())).json()
    return user


async def test_the_first_time_makes_an_account_and_later_ones_find_it(
    client: httpx.AsyncClient, key: SigningKey, server: CertificateServer
) -> None:
    first = await google_user(client, google_token(key))
    assert (first["username"], first["email"]) == ("grace", "grace@example.com")
    assert (first["full_name"], first["avatar_url"]) == ("Grace Hopper", "https://lh3.example.com/grace.png")
    assert (first["is_verified"], first["subscription_plan"]) == (True, "free")
    # Google's subject is what counts: people change their addresses.
    again = await google_user(client, google_token(key, email="grace.hopper@example.com"))
    assert (again["id"], again["email"]) == (first["id"], "grace@example.com")
    assert server.fetches == 1


async def test_parallel_first_times_make_one_account(client: httpx.AsyncClient, key: SigningKey) -> None:
    answers = await asyncio.gather(*(with_google(client, google_token(key)) for _ in range(8)))
    signed_in = [answer.json() for answer in answers if answer.status_code == 200]
    assert signed_in
    assert {answer.status_code for answer in answers} <= {200, 401}
    assert len({(await me(client, tokens)).json()["id"] for tokens in signed_in}) == 1


async def test_links_to_the_account_with_this_verified_address(client: httpx.AsyncClient, key: SigningKey) -> None:
    boss = (await me(client, (await login(client, ADMIN)).json())).json()
    assert boss["is_verified"]
    assert (await google_user(client, google_token(key, email=ADMIN.upper())))["id"] == boss["id"]
    assert (await login(client, ADMIN)).status_code == 200


async def test_never_takes_over_an_account_whose_address_is_not_verified(
    client: httpx.AsyncClient, key: SigningKey
) -> None:
    assert (await register(client, "grace")).status_code == 201
    for address in ("grace@example.com", "GRACE@example.com"):
        assert_problem(
            await with_google(client, google_token(key, email=address)),
            401,
            "invalid_google_token",
            "An account with this email exists, please sign in with its password",
        )
    assert (await login(client, "grace")).status_code == 200


async def test_a_verified_account_is_not_linked_to_an_address_that_google_has_not_verified(
    client: httpx.AsyncClient, key: SigningKey
) -> None:
    assert_problem(
        await with_google(client, google_token(key, email=ADMIN, email_verified=False)),
        401,
        "invalid_google_token",
        "Google has not verified the email address of this account",
    )


async def test_one_account_is_not_linked_twice(client: httpx.AsyncClient, key: SigningKey) -> None:
    await google_user(client, google_token(key))
    answer = await with_google(client, google_token(key, sub="another"))
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_google_token")


async def test_a_deactivated_account_stays_out(client: httpx.AsyncClient, key: SigningKey) -> None:
    user = await google_user(client, google_token(key))
    boss = (await login(client, ADMIN)).json()
    answer = await client.patch(f"/api/v1/users/{user['id']}", json={"is_active": False}, headers=bearer(boss))
    assert answer.status_code == 200, answer.text
    assert_problem(
        await with_google(client, google_token(key)),
        401,
        "account_inactive",
        "This account is deactivated, please contact your administrator",
    )


async def test_a_bad_token(client: httpx.AsyncClient, key: SigningKey) -> None:
    for token in ("not.a.token", google_token(key, aud="someone-else"), google_token(SigningKey("a1"))):
        assert_problem(
            await with_google(client, token), 401, "invalid_google_token", "Google token is invalid or has expired"
        )


async def test_without_certificates_the_client_is_told_to_come_back(
    client: httpx.AsyncClient, key: SigningKey, server: CertificateServer
) -> None:
    server.status = 500
    answer = await with_google(client, google_token(key))
    assert_problem(answer, 503, "unavailable", "Google cannot be reached right now, please try again in a moment")
    assert int(answer.headers["Retry-After"]) > 0
