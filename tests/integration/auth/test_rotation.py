"""Signing keys change under live traffic: two replicas of auth, and another service that fetches the keys by HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from services.auth.main import create_app as create_auth
from services.auth.settings import AuthSettings
from services.envs.main import create_app as create_envs
from services.envs.settings import EnvsSettings
from tests.integration.auth.conftest import bearer, refresh, signed_in
from tests.support.app import eventually, running_app
from tests.support.servers import free_port

CLIENTS = 4
CALLS_AFTERWARDS = 20
AHEAD = timedelta(seconds=1.5)


def kid_of(tokens: dict[str, str]) -> str:
    header = tokens["access_token"].split(".")[0]
    kid: str = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]
    return kid


@asynccontextmanager
async def on_a_port(app: FastAPI) -> AsyncIterator[str]:
    """The started app behind a real socket."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan="off", ws="none"))
    serving = asyncio.create_task(server.serve())

    async def started() -> bool:
        return server.started

    await eventually(started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


@pytest.mark.timeout(60)
async def test_no_call_fails(
    make_auth_settings: Callable[..., AuthSettings], make_settings: Callable[..., Any]
) -> None:
    async with AsyncExitStack() as stack:
        replicas = [create_auth(make_auth_settings()) for _ in range(2)]
        clients = [await stack.enter_async_context(running_app(app)) for app in replicas]
        urls = [await stack.enter_async_context(on_a_port(app)) for app in replicas]
        jwks = ",".join(f"{url}/api/v1/auth/.well-known/jwks.json" for url in urls)
        envs = await stack.enter_async_context(running_app(create_envs(make_settings(EnvsSettings, jwks_url=jwks))))

        answers: Counter[int] = Counter()
        kids: set[str] = set()

        async def live(number: int, until: Callable[[dict[str, str]], bool]) -> None:
            """Refresh at one replica, use the token at the other and at envs, again and again."""
            mine, other = clients[number % 2], clients[(number + 1) % 2]
            tokens = await signed_in(mine, f"user-{number}")
            calls_left = CALLS_AFTERWARDS
            while calls_left:
                answer = await refresh(mine, tokens)
                tokens = answer.json()
                kids.add(kid_of(tokens))
                used = await other.get("/api/v1/auth/me", headers=bearer(tokens))
                listed = await envs.get("/api/v1/environments", headers=bearer(tokens))
                answers.update((answer.status_code, used.status_code, listed.status_code))
                calls_left -= until(tokens)

        before = (await replicas[0].state.auth.ring.published())[-1].kid
        made = await replicas[0].state.auth.ring.rotate(AHEAD)
        # As the other replica does every minute.
        await replicas[1].state.auth.ring.load()
        await asyncio.gather(*(live(number, lambda tokens: kid_of(tokens) == made.kid) for number in range(CLIENTS)))
        assert kids == {before, made.kid}
        assert set(answers) == {200}
        keys = (await httpx.AsyncClient().get(jwks.split(",")[0])).json()["keys"]
        assert {key["kid"] for key in keys} == {before, made.kid}
