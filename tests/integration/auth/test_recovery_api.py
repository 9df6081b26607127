"""Links in mails, on real servers: verified addresses, forgotten and changed passwords."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from services.auth.main import create_app
from services.auth.ports import MailUnavailableError
from services.auth.settings import AuthSettings
from tests.fakes.auth import SentMails
from tests.integration.auth.conftest import PASSWORD, assert_problem, bearer, login, me, register, signed_in
from tests.support.app import eventually, running_app

ANOTHER = "Another-Horse-2"
EMAIL = "ada@example.com"


@pytest.fixture
def sent() -> SentMails:
    return SentMails()


@pytest.fixture
def app(make_auth_settings: Callable[..., AuthSettings], sent: SentMails) -> FastAPI:
    return create_app(make_auth_settings(public_url="https://dev.example.com/"), mailer=sent)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with running_app(app) as client:
        yield client


async def token_of(sent: SentMails, number: int, path: str) -> str:
    """From the link in the mail of this number."""

    async def there() -> bool:
        return len(sent.mails) >= number

    await eventually(there)
    link = urlsplit(sent.mails[number - 1].link)
    assert (link.scheme, link.netloc, link.path) == ("https", "dev.example.com", f"/api/v1/auth/{path}")
    return parse_qs(link.query)["token"][0]


async def post(client: httpx.AsyncClient, path: str, **body: str) -> httpx.Response:
    return await client.post(f"/api/v1/auth/{path}", json=body)


class TestVerification:
    async def test_by_the_mail_that_follows_registration(self, client: httpx.AsyncClient, sent: SentMails) -> None:
        tokens = await signed_in(client)
        token = await token_of(sent, 1, "verify-email")
        assert sent.mails[0].to == EMAIL
        page = await client.get("/api/v1/auth/verify-email", params={"token": token})
        assert page.headers["content-type"].startswith("text/html")
        assert token not in page.text
        assert not (await me(client, tokens)).json()["is_verified"]
        assert (await post(client, "verify-email", token=token)).status_code == 200
        assert (await me(client, tokens)).json()["is_verified"]
        again = await post(client, "verify-email", token=token)
        assert (again.status_code, again.json()["code"]) == (400, "invalid_link")

    async def test_a_mail_server_that_was_away_gets_it_later(self, client: httpx.AsyncClient, sent: SentMails) -> None:
        sent.failing = MailUnavailableError("away")
        asked = sent.asked
        await register(client)

        async def was_tried() -> bool:
            return sent.asked > asked

        await eventually(was_tried)
        assert sent.mails == []

    async def test_asking_again_tells_nothing(self, client: httpx.AsyncClient, sent: SentMails) -> None:
        await register(client)
        await token_of(sent, 1, "verify-email")
        known = await post(client, "resend-verification", email=EMAIL)
        unknown = await post(client, "resend-verification", email="nobody@example.com")
        assert (known.status_code, known.json()) == (unknown.status_code, unknown.json())
        assert known.status_code == 202
        await token_of(sent, 2, "verify-email")


class TestReset:
    async def test_the_whole_way(self, client: httpx.AsyncClient, sent: SentMails) -> None:
        tokens = await signed_in(client)
        assert (await post(client, "forgot-password", email=EMAIL)).status_code == 202
        token = await token_of(sent, 2, "reset-password")
        page = await client.get("/api/v1/auth/reset-password", params={"token": token})
        assert "script-src 'nonce-" in page.headers["content-security-policy"]
        weak = await post(client, "reset-password", token=token, new_password="weak")
        assert weak.status_code == 422
        assert (await post(client, "reset-password", token=token, new_password=ANOTHER)).status_code == 200
        assert (await me(client, tokens)).status_code == 401
        assert (await login(client)).status_code == 401
        assert (await login(client, password=ANOTHER)).status_code == 200
        again = await post(client, "reset-password", token=token, new_password=PASSWORD)
        assert (again.status_code, again.json()["code"]) == (400, "invalid_link")

    async def test_unknown_addresses_answer_alike(self, client: httpx.AsyncClient) -> None:
        await register(client)
        known = await post(client, "forgot-password", email=EMAIL)
        unknown = await post(client, "forgot-password", email="nobody@example.com")
        assert (known.status_code, known.json()) == (unknown.status_code, unknown.json())

    async def test_only_hashes_are_stored(self, client: httpx.AsyncClient, app: FastAPI, sent: SentMails) -> None:
        await register(client)
        token = await token_of(sent, 1, "verify-email")
        documents = [str(document) async for document in app.state.platform.database["links"].find({})]
        assert len(documents) == 1
        assert token not in documents[0]

    async def test_without_a_mailer_it_is_said(self, make_auth_settings: Callable[..., AuthSettings]) -> None:
        async with running_app(create_app(make_auth_settings())) as client:
            answer = await post(client, "forgot-password", email=EMAIL)
            assert (answer.status_code, answer.json()["code"]) == (503, "mail_not_configured")


class TestChange:
    async def test_signs_the_others_out(self, client: httpx.AsyncClient) -> None:
        mine, other = await signed_in(client), await signed_in(client, new=False)
        body = {"current_password": PASSWORD, "new_password": ANOTHER}
        assert (await client.post("/api/v1/auth/change-password", json=body, headers=bearer(mine))).status_code == 200
        assert (await me(client, mine)).status_code == 200
        assert (await me(client, other)).status_code == 401
        wrong = await client.post("/api/v1/auth/change-password", json=body, headers=bearer(mine))
        assert_problem(wrong, 403, "incorrect_password", "The password is not correct")


class TestUnknownNames:
    async def test_lock_like_known_ones(self, client: httpx.AsyncClient) -> None:
        await register(client)
        seen: dict[str, list[tuple[int, str, str]]] = {"ada": [], "nobody": []}
        for name, answers in seen.items():
            for _ in range(7):
                answer = await login(client, name, "wrong")
                answers.append((answer.status_code, answer.json()["code"], answer.json()["detail"]))
        assert seen["ada"] == seen["nobody"]
        assert [code for _, code, _ in seen["ada"]] == ["incorrect_credentials"] * 5 + ["account_locked"] * 2
