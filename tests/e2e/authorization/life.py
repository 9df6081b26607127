"""Somebody who uses a stack and has every secret and every answer written down."""

from __future__ import annotations

import asyncio
import email
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email import policy
from io import SEEK_END, StringIO
from typing import Any, TypeVar

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.e2e.authorization.ledger import Ledger
from tests.e2e.authorization.stores import Stores
from tests.support.phone import Phone
from tests.support.stack import LocalStack

_TIMEOUT_S = 60.0
_AUTH = "/api/v1/auth"
LIVE_EVENTS = "GET /api/v1/events 200"

_FoundT = TypeVar("_FoundT")


class Life:
    """Writes every secret and every answer into `ledger`."""

    def __init__(self, stack: LocalStack, stores: Stores, ledger: Ledger) -> None:
        self.stack = stack
        self.stores = stores
        self.ledger = ledger
        self.snapshots: dict[str, str] = {}
        self.http = ledger.client(stack.url)

    def password(self, name: str = "password") -> str:
        """A new one that fits the policy."""
        return self.ledger.learn(name, f"Pw1-{secrets.token_hex(8)}")

    async def register(self, password: str) -> dict[str, Any]:
        """A new account, its address verified by the mailed link."""
        name = f"lively-{secrets.token_hex(5)}"
        body = {"username": name, "email": f"{name}@example.com", "password": password}
        account: dict[str, Any] = done(await self.http.post(f"{_AUTH}/register", json=body), 201)
        token = await self.mailed_token(account["email"], "verify-email")
        done(await self.http.get(f"{_AUTH}/verify-email", params={"token": token}), 200)
        done(await self.http.post(f"{_AUTH}/verify-email", json={"token": token}), 200)
        return account

    async def log_in(self, name: str, password: str) -> dict[str, Any]:
        """Tokens."""
        body = {"username_or_email": name, "password": password, "device_name": "lively"}
        return self.tokens(await self.http.post(f"{_AUTH}/login", json=body))

    def tokens(self, answer: httpx.Response) -> dict[str, Any]:
        """What an answer with tokens holds."""
        tokens: dict[str, Any] = done(answer, 200)
        self.ledger.given("access token", tokens["access_token"])
        self.ledger.given("refresh token", tokens["refresh_token"])
        return tokens

    @asynccontextmanager
    async def signed_in(self, name: str, password: str) -> AsyncIterator[Phone]:
        """A phone whose answers are written down."""
        token = (await self.log_in(name, password))["access_token"]
        async with self.ledger.client(self.stack.url, token) as http:
            yield Phone(self.stack.url, http, token, done(await http.get(f"{_AUTH}/me"), 200))

    async def mailed_token(self, address: str, page: str) -> str:
        """That of the link to `page` in the newest mail to this address."""
        folder = self.stack.data_dir / "mails"

        async def newest() -> str:
            for path in sorted(folder.glob(f"*-{address}-*.eml"), reverse=True):
                mail = email.message_from_bytes(path.read_bytes(), policy=policy.default)
                found = re.search(rf"/{page}\?token=([A-Za-z0-9_-]{{43}})\s", mail.get_content())
                if found is not None:
                    return found[1]
            return ""

        return self.ledger.mailed(await until(newest))

    @asynccontextmanager
    async def listening(self, token: str) -> AsyncIterator[None]:
        """Live events during the block are one more answer."""
        headers = {"Authorization": f"Bearer {token}"}
        heard = StringIO(f"{LIVE_EVENTS}\n")
        heard.seek(0, SEEK_END)
        async with (
            httpx.AsyncClient(base_url=self.stack.url, timeout=_TIMEOUT_S, headers=headers) as http,
            http.stream("GET", "/api/v1/events") as answer,
        ):

            async def listen() -> None:
                async for text in answer.aiter_text():
                    heard.write(text)

            listening = asyncio.create_task(listen())
            try:
                yield
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
        self.ledger.answers.append(heard.getvalue())

    async def socket(self, path: str) -> None:
        """Opens and closes a WebSocket; the answer of a refused one is written down."""
        try:
            async with connect(f"{self.stack.url.replace('http', 'ws', 1)}{path}"):
                pass
        except InvalidStatus as refused:
            body = (refused.response.body or b"").decode()
            self.ledger.answers.append(f"WS {path.partition('?')[0]} {refused.response.status_code}\n{body}")


def done(answer: httpx.Response, status: int) -> Any:
    """The JSON of an answer that must have this status."""
    assert answer.status_code == status, (answer.request.method, answer.request.url.path, answer.text)
    return answer.json() if answer.headers.get("content-type") == "application/json" else None


async def until(look: Callable[[], Awaitable[_FoundT]]) -> _FoundT:
    """What `look` finds, once it does."""
    async with asyncio.timeout(_TIMEOUT_S):
        while not (found := await look()):  # noqa: ASYNC110 - it happens elsewhere
            await asyncio.sleep(0.05)
    return found
