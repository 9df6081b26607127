"""The callers: three users, their API keys, and everything that looks like a credential and must not be one."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aiohttp

from libs.common.clock import utc_now
from libs.common.contracts.identity import Scope
from tests.e2e.authorization.forgery import Forger
from tests.e2e.authorization.operations import NOBODY, PASSWORD
from tests.e2e.authorization.rules import Caller, Target, User
from tests.e2e.authorization.stores import SERVICES, Stores
from tests.support.app import eventually
from tests.support.phone import Phone, log_in, signed_in

_TIMEOUT_S = 60.0
# One path of each service.
_LOOKS = ("/api/v1/auth/me", "/api/v1/environments", "/api/v1/regions", "/api/v1/ws/nothing")
# Where the plan of a key's owner counts.
_ADMIN_LOOKS = ("/api/v1/users", "/api/v1/admin/events?limit=1", "/api/v1/clusters")
_AT_ONCE = 12


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; of an endless answer only the head."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Cast:
    """Everybody, and what the owner has. `values` fill the braces in the table's paths and bodies."""

    http: aiohttp.ClientSession
    callers: tuple[Caller, ...]
    phones: dict[User, Phone]
    forger: Forger
    values: dict[str, str]
    at_once: asyncio.Semaphore

    @property
    def owner(self) -> Phone:
        """Who has something."""
        return self.phones[User.OWNER]

    async def ask(self, method: str, url: str, authorization: str | None = None, **options: Any) -> Answer:
        """One call; `options` as aiohttp has them."""
        headers = {"Authorization": authorization} if authorization is not None else {}
        headers |= options.pop("headers", {})
        async with self.at_once, self.http.request(method, url, headers=headers, **options) as answer:
            body = b"" if answer.content_type == "text/event-stream" else await answer.read()
            return Answer(answer.status, body)

    async def stand_in(self, user: User) -> str:
        """The credential of a throw-away account; for the administrator that of one more administrator."""
        name = f"stand-in-{secrets.token_hex(5)}"
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        made = await self.ask("POST", "/api/v1/auth/register", json=body)
        assert made.status == 201, made.body
        if user is User.ADMIN:
            await set_plan(self.phones[User.ADMIN], made.json()["id"], "admin")
        login = {"username_or_email": name, "password": PASSWORD}
        signed_in = await self.ask("POST", "/api/v1/auth/login", json=login)
        return f"Bearer {signed_in.json()['access_token']}"

    async def until_down(self) -> None:
        """The owner's environment is, and who is asked to look into it knows."""
        path = f"/api/v1/environments/{self.values['environment_id']}"
        await self.owner.until(self.values["environment_id"], "stopped")

        async def is_known() -> bool:
            return (await self.owner.http.get(f"{path}/ports")).status_code == 409

        await eventually(is_known)

    async def fresh(self, target: Target) -> dict[str, str]:
        """Something more of the owner's, to be used up: what goes into the path."""
        owner = self.owner
        if target is Target.ENVIRONMENT:
            body = {"name": f"spare-{secrets.token_hex(4)}", "template": "python"}
            answer = await owner.http.post("/api/v1/environments", json=body)
            assert answer.status_code == 201, answer.text
            return {"environment_id": answer.json()["id"]}
        if target is Target.API_KEY:
            return {"key_id": (await owner.make_key("read"))[0]}
        return {"session_id": await _another_session(owner)}


@asynccontextmanager
async def gathered(url: str, admin: Phone, stores: Stores) -> AsyncIterator[Cast]:
    """The whole cast, known to every service."""
    async with AsyncExitStack() as stack:
        owner = await stack.enter_async_context(signed_in(url, password=PASSWORD))
        # First of all: a key's first seconds are those in which services wait for news of it.
        ruined, spoilt = await _ruined_keys(owner, stores)
        other = await stack.enter_async_context(signed_in(url))
        await set_plan(admin, owner.account["id"], "admin")
        keys = [(User.OWNER, scope, (await owner.make_key(scope))[1]) for scope in Scope]
        keys += [(User.ADMIN, scope, (await admin.make_key(scope))[1]) for scope in (Scope.ADMIN, Scope.READ)]
        # No administrator any longer, the owner is signed out everywhere.
        await set_plan(admin, owner.account["id"], "pro")
        owner = await stack.enter_async_context(log_in(url, owner.account["username"], PASSWORD))
        phones = {User.OWNER: owner, User.OTHER: other, User.ADMIN: admin}
        good = [
            *(Caller(user.value, f"Bearer {phone.token}", user) for user, phone in phones.items()),
            *(Caller(f"{user}'s key {scope}", f"Bearer {key}", user, scope) for user, scope, key in keys),
        ]
        forger = Forger(owner.token, await stores.signing_key())
        void = {**ruined, **forger.forgeries(), "a token after logout": await _logged_out(owner)}
        oddities = {**forger.oddities(), **spoilt, "a refresh token": owner.refresh_token}
        bad = [
            Caller("nobody", None),
            *(Caller(name, f"Bearer {credential}") for name, credential in void.items()),
            *(Caller(name, f"Bearer {text}", tried_once=True) for name, text in oddities.items()),
            Caller("a good token without Bearer", owner.token, tried_once=True),
            Caller("name and password", f"Basic {_basic(owner.account['username'])}", tried_once=True),
        ]
        timeout = aiohttp.ClientTimeout(_TIMEOUT_S)
        http = await stack.enter_async_context(aiohttp.ClientSession(url, timeout=timeout))
        values = {
            "environment_id": await owner.create(),
            "session_id": await _another_session(owner),
            "key_id": (await owner.make_key("read"))[0],
            "email": owner.account["email"],
            "template": "python",
            "nothing": NOBODY,
            "place": "1",
            "no_place": str(10**15),
        }
        limit = asyncio.Semaphore(_AT_ONCE)
        cast = Cast(http, (*good, *bad), phones, forger, values, limit)
        await _until_known(cast, good)
        yield cast


async def _until_known(cast: Cast, callers: list[Caller]) -> None:
    """Changed plans and new keys reach the services by events."""

    async def are_known() -> bool:
        for caller in callers:
            if caller.scope in {None, Scope.ADMIN}:
                wanted = 200 if caller.user is User.ADMIN else 403
                if any([(await cast.ask("GET", path, caller.authorization)).status != wanted for path in _ADMIN_LOOKS]):
                    return False
            if any([(await cast.ask("GET", path, caller.authorization)).status == 401 for path in _LOOKS]):
                return False
        return True

    await eventually(are_known)


async def set_plan(admin: Phone, user_id: str, plan: str) -> None:
    """By the administrator."""
    answer = await admin.http.patch(f"/api/v1/users/{user_id}", json={"subscription_plan": plan})
    assert answer.status_code == 200, answer.text


async def _ruined_keys(owner: Phone, stores: Stores) -> tuple[dict[str, str], dict[str, str]]:
    """Keys by what is wrong with them; the second ones are odder."""
    revoked_id, revoked = await owner.make_key("read")
    assert (await owner.http.delete(f"/api/v1/auth/api-keys/{revoked_id}")).status_code == 200
    expired_id, expired = await owner.make_key("read")
    await _expire(expired_id, stores)
    _, good = await owner.make_key("read")
    _, another = await owner.make_key("read")
    ruined = {
        "a revoked API key": revoked,
        "an expired API key": expired,
        "an API key with a wrong secret": good[:-43] + secrets.token_urlsafe(32),
    }
    return ruined, {
        "an API key with another key's secret": good[:-43] + another[-43:],
        "an API key without a secret": good[:-43],
    }


async def _expire(key_id: str, stores: Stores) -> None:
    """A key lives for a day at least, so its end is moved, wherever it is known."""
    past = {"$set": {"expires_at": utc_now() - timedelta(minutes=1)}}
    async with asyncio.timeout(_TIMEOUT_S):
        for service in SERVICES:
            keys = stores.database(service)["api_keys"]
            while (await keys.update_one({"_id": key_id}, past)).matched_count == 0:  # noqa: ASYNC110 - by an event
                await asyncio.sleep(0.05)


async def _logged_out(phone: Phone) -> str:
    async with log_in(phone.url, phone.account["username"], PASSWORD) as gone:
        answer = await gone.http.post("/api/v1/auth/logout")
        assert answer.status_code == 200, answer.text
        return gone.token


async def _another_session(phone: Phone) -> str:
    async with log_in(phone.url, phone.account["username"], PASSWORD) as another:
        sessions = (await another.http.get("/api/v1/auth/sessions")).json()
    session_id: str = next(session["id"] for session in sessions if session["current"])
    return session_id


def _basic(username: str) -> str:
    return base64.b64encode(f"{username}:{PASSWORD}".encode()).decode()
