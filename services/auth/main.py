"""The auth service: accounts, tokens, keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from libs.common.clock import Clock, utc_now
from libs.common.http.app import create_service_app
from libs.common.http.replays import replay_router
from libs.common.platform import Platform
from services.auth.api import ROUTERS
from services.auth.assembly import AuthServices, configured_google, make_key_ring
from services.auth.events import audit_subscription, deletion_subscriptions, mail_subscription, subscribe_sightings
from services.auth.first_admin import ensure_first_admin
from services.auth.mail import configured_mailer
from services.auth.metrics import CountedMailer, CountedSignIn, mail_counter
from services.auth.migrations import MIGRATIONS
from services.auth.ports import GoogleIdentities, Mailer
from services.auth.replay import replay_target
from services.auth.repository import MongoKeyDirectory
from services.auth.settings import AuthSettings

SERVICE = "auth"


def create_app(
    settings: AuthSettings | None = None,
    *,
    google: GoogleIdentities | None = None,
    mailer: Mailer | None = None,
    clock: Clock = utc_now,
) -> FastAPI:
    """The application. `google` stands in for google-auth, `mailer` for a mail server, `clock` for the time of day."""
    settings = settings or AuthSettings()
    ring = make_key_ring(settings, clock)
    directory = MongoKeyDirectory()
    platform = Platform(settings, SERVICE, keys=ring, api_keys=directory, migrations=MIGRATIONS)
    directory.attach(platform.database)
    mailer = mailer or configured_mailer(settings)
    mails = mail_counter(platform.metrics)
    services = AuthServices(
        settings,
        platform.database,
        platform.outbox,
        platform.revocations,
        ring,
        google=google or configured_google(settings),
        mailer=CountedMailer(mailer, mails) if mailer is not None else None,
        clock=clock,
    )
    subscriptions = [audit_subscription(services.audit), *deletion_subscriptions(services.deletion)]
    if services.mails is not None:
        subscriptions.append(mail_subscription(services.mails))
    for subscription in subscriptions:
        platform.bus.subscribe(subscription)
    subscribe_sightings(platform.bus, services.sightings)

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

    app = create_service_app(platform, [*ROUTERS, replay_router(SERVICE, replay_target)], lifespan)
    app.state.auth = services
    app.state.sign_in = CountedSignIn(services.sign_in, platform.metrics)
    return app
