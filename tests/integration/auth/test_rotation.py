"""Signing keys change under live traffic: two replicas of auth, and another service that fetches the keys by HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

from services.auth.main import create_app as create_auth
from services.auth.settings import AuthSettings
from services.envs.main import create_app as create_envs
from services.envs.settings import EnvsSettings
from tests.integration.auth.conftest import bearer, refresh, signed_in
from tests.support.app import running_app, served

CLIENTS = 4
CALLS_AFTERWARDS = 20
AHEAD = timedelta(seconds=1.5)


def kid_of(tokens: dict[str, str]) -> str:
    header = tokens["access_token"].split(".")[0]
    kid: str = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]
    return kid


async def test_no_call_fails(
    make_auth_settings: Callable[..., AuthSettings], make_settings: Callable[..., Any]
) -> None:
    async with AsyncExitStack() as stack:
        replicas = [create_auth(make_auth_settings()) for _ in range(2)]
        clients = [await stack.enter_async_context(running_app(app)) for app in replicas]
        urls = [await stack.enter_async_context(served(app, ws="none")) for app in replicas]
        jwks = ",".join(f"{url}/api/v1/auth/.well-known/jwks.json" for url in urls)
        envs = await stack.enter_async_context(running_app(create_envs(make_settings(EnvsSettings, jwks_url=jwks))))

        answers: Counter[int] = Counter()
        kids: set[str] = set()

        async def live(number: int, tokens: dict[str, str]) -> None:
            """Use a token at one replica and at envs, refresh at the other, again and again."""
            mine, other = clients[number % 2], clients[(number + 1) % 2]
            calls_left = CALLS_AFTERWARDS
            while calls_left:
                kids.add(kid_of(tokens))
                used = await other.get("/api/v1/auth/me", headers=bearer(tokens))
                listed = await envs.get("/api/v1/environments", headers=bearer(tokens))
                answer = await refresh(mine, tokens)
                answers.update((used.status_code, listed.status_code, answer.status_code))
                calls_left -= kid_of(tokens) == made.kid
                tokens = answer.json()

        before = (await replicas[0].state.auth.ring.published())[-1].kid
        # On a busy machine the new key may sign before anybody could sign in.
        signed = [await signed_in(clients[number % 2], f"user-{number}") for number in range(CLIENTS)]
        made = await replicas[0].state.auth.ring.rotate(AHEAD)
        # As the other replica does every minute.
        await replicas[1].state.auth.ring.load()
        await asyncio.gather(*(live(number, tokens) for number, tokens in enumerate(signed)))
        assert kids == {before, made.kid}
        assert set(answers) == {200}
        keys = (await clients[0].get("/api/v1/auth/.well-known/jwks.json")).json()["keys"]
        assert {key["kid"] for key in keys} == {before, made.kid}
