"""Runs a service's app in this process, connected to the test servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
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


@asynccontextmanager
async def served(app: Any, **options: Any) -> AsyncIterator[str]:
    """The started app behind a real socket, on which answers stream; gives its address. `options` are uvicorn's."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None, **options))
    serving = asyncio.create_task(server.serve())

    async def started() -> bool:
        return server.started

    try:
        await eventually(started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
