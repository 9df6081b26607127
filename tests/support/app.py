"""Runs a service's app in this process, connected to the test servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

_READY_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.02


async def eventually(done: Callable[[], Awaitable[bool]], timeout_s: float = 60.0) -> None:
    """Until `done`, asked again and again. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not await done():  # noqa: ASYNC110 - what is looked at is in other processes
            await asyncio.sleep(_LOOK_EVERY_S)


@asynccontextmanager
async def running_app(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The app with its lifespan, ready; the client speaks to it without a socket."""
    async with app.router.lifespan_context(app):
        await asyncio.wait_for(app.state.platform.health.wait_started(), _READY_TIMEOUT_S)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client
