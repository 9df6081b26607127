"""Registration, sign-in, lockout and the profile, over HTTP on real servers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from services.auth.main import create_app
from services.auth.settings import AuthSettings
from tests.integration.auth.conftest import PASSWORD, assert_problem, login, me, register, signed_in
from tests.support.app import running_app
from tests.support.servers import redis_server

USER_FIELDS = {
    "id",
    "username",
    "email",
    "full_name",
    "is_active",
    "is_verified",
    "avatar_url",
    "subscription_plan",
    "created_at",
    "last_login",
}


class TestRegister:
    async def test_answers_the_user_and_no_hash(self, client: httpx.AsyncClient) -> None:
        answer = await register(client, full_name="Ada Lovelace")
        assert answer.status_code == 201
        user = answer.json()
        assert set(user) == USER_FIELDS
        assert user["username"] == "ada"
        assert user["email"] == "ada@example.com"
        assert user["full_name"] == "Ada Lovelace"
        assert (user["is_active"], user["is_verified"], user["subscription_plan"]) == (True, False, "free")
        assert user["last_login"] is None

    @pytest.mark.parametrize(
        ("changes", "code", "detail"),
        [
            ({"username": "eve", "email": "ADA@example.com"}, "email_taken", "Email already registered"),
            ({"username": "ADA", "email": "eve@example.com"}, "username_taken", "Username already taken"),
        ],
    )
    async def test_unique_in_any_case(
        self, client: httpx.AsyncClient, changes: dict[str, str], code: str, detail: str
    ) -> None:
        await register(client)
        assert_problem(await register(client, **changes), 400, code, detail)

    async def test_of_parallel_ones_one_wins(self, client: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(*(register(client, email="Ada@example.com") for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [201] + [400] * 9

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"password": "Aa1"}, "Password must be at least 8 characters long"),
            ({"password": "PASSWORD1"}, "Password must contain at least one lowercase letter"),
            ({"password": "password1"}, "Password must contain at least one uppercase letter"),
            ({"password": "Passwords"}, "Password must contain at least one digit"),
            ({"username": "a b c", "email": "abc@example.com"}, "Username must be 3-30 characters: letters, digits"),
            ({"email": "ada"}, "Not a valid email address: "),
            ({"full_name": "x" * 101}, "String should have at most 100 characters"),
            ({"username": None}, "Input should be a valid string"),
        ],
    )
    async def test_bad_input_is_told_apart(
        self, client: httpx.AsyncClient, changes: dict[str, Any], message: str
    ) -> None:
        answer = await register(client, **changes)
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["field"] == f"body.{next(iter(changes))}"
        assert error["message"].startswith(message)
        if "password" in changes:
            assert changes["password"] not in answer.text

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"username":"\\ud800abc"}'])
    async def test_garbage_is_never_our_fault(self, client: httpx.AsyncClient, body: bytes) -> None:
        answer = await client.post("/api/v1/auth/register", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in {400, 422}
        assert answer.headers["content-type"] == "application/problem+json"


class TestLogin:
    async def test_answers_tokens(self, client: httpx.AsyncClient) -> None:
        tokens = await signed_in(client)
        assert set(tokens) == {"access_token", "refresh_token", "token_type", "expires_in"}
        assert tokens["token_type"] == "bearer"
        assert int(tokens["expires_in"]) == 1800
        assert re.fullmatch(r"[A-Za-z0-9_-]{86}", tokens["refresh_token"])

    @pytest.mark.parametrize("name", ["ADA", "Ada@Example.com"])
    async def test_in_any_case(self, client: httpx.AsyncClient, name: str) -> None:
        await register(client)
        assert (await login(client, name)).status_code == 200

    @pytest.mark.parametrize(("name", "password"), [("ada", "wrong"), ("nobody", PASSWORD), ("a@b.c", PASSWORD)])
    async def test_wrong(self, client: httpx.AsyncClient, name: str, password: str) -> None:
        await register(client)
        answer = await login(client, name, password)
        assert_problem(answer, 401, "incorrect_credentials", "Incorrect username/email or password")
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    async def test_long_passwords_count_to_the_end(self, client: httpx.AsyncClient) -> None:
        password = "Aa1" + "é" * 97
        await register(client, password=password)
        assert (await login(client, password=password)).status_code == 200
        assert (await login(client, password=password[:-1] + "e")).status_code == 401

    async def test_operators_are_no_queries(self, client: httpx.AsyncClient) -> None:
        await register(client)
        for name in ({"$ne": ""}, ["ada"], 1):
            body = {"username_or_email": name, "password": PASSWORD}
            assert (await client.post("/api/v1/auth/login", json=body)).status_code == 422


class TestLockout:
    async def test_after_five_failures(self, client: httpx.AsyncClient) -> None:
        await register(client)
        for _ in range(5):
            answer = await login(client, password="wrong")
            assert_problem(answer, 401, "incorrect_credentials", "Incorrect username/email or password")
        for password in ("wrong", PASSWORD):
            answer = await login(client, password=password)
            assert_problem(
                answer,
                401,
                "account_locked",
                "Account is temporarily locked due to too many failed login attempts. Please try again in 30 minutes.",
            )
            assert 1740 < int(answer.headers["Retry-After"]) <= 1800

    async def test_parallel_guesses_get_no_more_tries(self, client: httpx.AsyncClient) -> None:
        await register(client)
        answers = await asyncio.gather(*(login(client, password=f"wrong {n}") for n in range(20)))
        codes = [answer.json()["code"] for answer in answers]
        assert codes.count("incorrect_credentials") == 5
        assert codes.count("account_locked") == 15

    async def test_also_across_replicas(
        self, auth_app: FastAPI, make_auth_settings: Callable[..., AuthSettings]
    ) -> None:
        async with running_app(auth_app) as one, running_app(create_app(make_auth_settings())) as two:
            await register(one)
            answers = await asyncio.gather(
                *(login(client, password=f"wrong {n}") for n in range(10) for client in (one, two))
            )
        assert [answer.json()["code"] for answer in answers].count("incorrect_credentials") == 5

    async def test_many_devices_may_sign_in_at_once(self, client: httpx.AsyncClient) -> None:
        await register(client)
        answers = await asyncio.gather(*(login(client) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}


class TestMe:
    async def test_answers_the_user(self, client: httpx.AsyncClient) -> None:
        tokens = await signed_in(client)
        answer = await me(client, tokens)
        assert answer.status_code == 200
        assert set(answer.json()) == USER_FIELDS
        assert answer.json()["last_login"] is not None

    async def test_nobody(self, client: httpx.AsyncClient) -> None:
        assert_problem(await client.get("/api/v1/auth/me"), 401, "unauthenticated", "Not authenticated")


class TestGoogle:
    async def test_not_configured(self, client: httpx.AsyncClient) -> None:
        answer = await client.post("/api/v1/auth/google", json={"token": "x"})
        assert answer.status_code == 503
        assert answer.json()["code"] == "google_not_configured"

    async def test_a_token_that_is_none(self, make_auth_settings: Callable[..., AuthSettings]) -> None:
        settings = make_auth_settings(google_client_id="app.apps.googleusercontent.com")
        async with running_app(create_app(settings, google=RefusesAll())) as client:
            answer = await client.post("/api/v1/auth/google", json={"token": "not.a.token"})
        assert_problem(answer, 401, "invalid_google_token", "Google token is invalid or has expired")


class TestLimits:
    async def test_sixth_login_in_a_minute_is_refused_with_headers(
        self, make_auth_settings: Callable[..., AuthSettings]
    ) -> None:
        async with running_app(create_app(make_auth_settings(rate_limit_auth="5/minute"))) as client:
            answers = [await login(client, "nobody") for _ in range(6)]
            assert [answer.status_code for answer in answers] == [401] * 5 + [429]
            refused = answers[-1]
            assert refused.json()["code"] == "rate_limited"
            assert (refused.headers["RateLimit-Limit"], refused.headers["RateLimit-Remaining"]) == ("5", "0")
            assert 0 < int(refused.headers["Retry-After"]) <= 60
            # Registration is counted by itself.
            assert (await register(client)).status_code == 201

    async def test_without_redis_people_still_sign_in(
        self, make_auth_settings: Callable[..., AuthSettings], tmp_path: Path
    ) -> None:
        redis = redis_server(tmp_path)
        redis.start()
        try:
            settings = make_auth_settings(
                redis_url=f"redis://127.0.0.1:{redis.port}/0",
                rate_limit_auth="5/minute",
                rate_limit_global="100/minute",
            )
            async with running_app(create_app(settings)) as client:
                await register(client)
                redis.kill()
                answers = [await login(client) for _ in range(7)]
                assert {answer.status_code for answer in answers} == {200}
                tokens = answers[-1].json()
                headers = {"Authorization": f"Bearer {tokens['access_token']}"}
                assert (await client.post("/api/v1/auth/logout", headers=headers)).status_code == 200
                assert (await me(client, tokens)).status_code == 401
                ready = await client.get("/health/ready")
                assert (ready.status_code, ready.json()["checks"]["cache"]) == (503, "unhealthy")
        finally:
            redis.stop()


class RefusesAll:
    """Google, when the token is not one of its own."""

    async def identify(self, token: str) -> Any:
        from services.auth.errors import InvalidGoogleTokenError

        raise InvalidGoogleTokenError

    def close(self) -> None:
        """Nothing runs."""
