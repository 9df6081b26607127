"""Runs a service's app in this process, connected to the test servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

_READY_TIMEOUT_S = 30.0


@asynccontextmanager
async def running_app(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The app with its lifespan, ready; the client speaks to it without a socket."""
    async with app.router.lifespan_context(app):
        await asyncio.wait_for(app.state.platform.health.wait_started(), _READY_TIMEOUT_S)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client
