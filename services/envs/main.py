"""The envs service: environments, templates, quotas, usage. `create_app` puts it together and connects nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from libs.common.http.app import create_service_app
from libs.common.http.replays import replay_router
from libs.common.platform import Platform
from libs.common.security.keys import KeySource
from services.envs.api import ROUTERS
from services.envs.deps import build
from services.envs.events.history import StreamHistory, reachable
from services.envs.events.live import LiveFeed
from services.envs.events.subscribers import subscriptions
from services.envs.events.usage import subscribe_usage
from services.envs.migrations import MIGRATIONS
from services.envs.replay import replay_target
from services.envs.settings import EnvsSettings

SERVICE = "envs"


def create_app(settings: EnvsSettings | None = None, *, keys: KeySource | None = None) -> FastAPI:
    """The application. `keys` replaces auth's key set, for tests."""
    settings = settings or EnvsSettings()
    platform = Platform(settings, SERVICE, keys=keys, migrations=MIGRATIONS)
    use_cases = build(settings, platform.database, platform.outbox, platform.metrics)
    live = LiveFeed(platform.bus)
    for subscription in subscriptions(use_cases.reports, platform.identities, use_cases.regions, use_cases.owners):
        platform.bus.subscribe(subscription)
    subscribe_usage(platform.bus, use_cases.usage)
    platform.revocations.on_revoked(live.close_session)

    async def prepare() -> None:
        await platform.identities.prepare()
        await use_cases.prepare()

    async def say_goodbye(_patience_s: float) -> None:
        # A stream never ends by itself, and the server would wait for it.
        live.close_all()

    platform.departure.say_by(say_goodbye)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with platform.starting(prepare, live.start):
            yield
        await live.stop()

    app = create_service_app(platform, [*ROUTERS, replay_router(SERVICE, replay_target)], lifespan)
    app.state.environments = use_cases.environments
    app.state.templates = use_cases.templates
    app.state.usage = use_cases.usage
    app.state.history = StreamHistory(platform.bus)
    app.state.jetstream = reachable(platform.bus)
    app.state.live = live
    return app
