"""A service whose handler does nothing: what is measured with it is the bus alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from libs.common.http.app import create_service_app
from libs.common.messaging.subscriptions import Delivery, Subscription
from libs.common.platform import Platform
from libs.common.settings import CommonSettings


def create_app() -> FastAPI:
    """The application; settings come from the environment."""
    platform = Platform(CommonSettings(), "nothing")

    async def do_nothing(_: Delivery) -> None:
        return

    async def prepare() -> None:
        return

    platform.bus.subscribe(Subscription("users", "devpocket.user.*.*", do_nothing))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with platform.starting(prepare):
            yield

    return create_service_app(platform, [], lifespan)
