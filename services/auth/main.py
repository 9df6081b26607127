"""The auth service: accounts, tokens, keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from libs.common.clock import Clock, utc_now
from libs.common.http.app import create_service_app
from libs.common.http.replays import replay_router
from libs.common.platform import Platform
from services.auth.api import auth_router, users_router
from services.auth.assembly import AuthServices, configured_google, make_key_ring
from services.auth.first_admin import ensure_first_admin
from services.auth.ports import GoogleIdentities
from services.auth.replay import replay_target
from services.auth.settings import AuthSettings


def create_app(
    settings: AuthSettings | None = None, *, google: GoogleIdentities | None = None, clock: Clock = utc_now
) -> FastAPI:
    """The application. `google` stands in for google-auth, `clock` for the time of day."""
    settings = settings or AuthSettings()
    ring = make_key_ring(settings, clock)
    platform = Platform(settings, "auth", keys=ring)
    services = AuthServices(
        settings,
        platform.database,
        platform.outbox,
        platform.revocations,
        ring,
        google=google or configured_google(settings),
        clock=clock,
    )

    async def prepare() -> None:
        await services.prepare()
        await ring.load()
        await ensure_first_admin(services.accounts, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            async with platform.starting(prepare, run=ring.start):
                yield
        finally:
            await ring.stop()
            services.close()

    app = create_service_app(platform, [auth_router, users_router, replay_router("auth", replay_target)], lifespan)
    app.state.auth = services
    return app
