"""The FastAPI application every service is made of."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware

from libs.common import mongo, redis
from libs.common.http.health import health_router
from libs.common.http.middleware import (
    AnnouncedLengthMiddleware,
    BodyLimitMiddleware,
    RequestContextMiddleware,
    TrailingSlashMiddleware,
)
from libs.common.http.openapi import with_problem_schema
from libs.common.http.problems import add_problem_handlers, responses
from libs.common.http.rate_limit import RateLimitMiddleware
from libs.common.http.tracing import FASTAPI_TELEMETRY
from libs.common.metrics.endpoint import metrics_router
from libs.common.metrics.http import HttpMetrics, MetricsMiddleware
from libs.common.migrations.gate import SchemaGateMiddleware
from libs.common.platform import Platform
from libs.common.version import VERSION

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_service_app(
    platform: Platform, routers: Sequence[APIRouter], lifespan: Lifespan, *, streamed: re.Pattern[str] | None = None
) -> FastAPI:
    """An app with health, problem+json, request ids, limits and CORS around `routers`.

    `lifespan` is the service's own; the platform is closed after it. `streamed`: paths whose routes limit bodies
    themselves.
    """

    @asynccontextmanager
    async def with_platform(app: FastAPI) -> AsyncIterator[None]:
        async with platform.open(), lifespan(app):
            yield

    app = FastAPI(
        title=f"DevPocket {platform.service}",
        version=VERSION,
        lifespan=with_platform,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # What every operation may answer, be it by the gateway: 400 to what cannot be read, 413 to what is too large.
        responses=responses(400, 413, 422, 429, 503),
        telemetry=FASTAPI_TELEMETRY,
    )
    app.state.platform = platform
    app.state.departure = platform.departure
    add_problem_handlers(app, (*mongo.UNAVAILABLE_ERRORS, *redis.UNAVAILABLE_ERRORS))
    app.include_router(health_router(platform.health, VERSION))
    app.include_router(metrics_router(platform.metrics))
    for router in routers:
        app.include_router(router)
    _add_middleware(app, platform, streamed)
    app.openapi = partial(_document, app.openapi)  # type: ignore[method-assign]  # the way FastAPI offers
    return app


def _document(generate: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return with_problem_schema(generate())


def _add_middleware(app: FastAPI, platform: Platform, streamed: re.Pattern[str] | None) -> None:
    """The last one added is the outermost."""
    settings = platform.settings
    if settings.rate_limit_global:
        app.add_middleware(
            RateLimitMiddleware,
            limiter=platform.limiter,
            tokens=platform.tokens,
            limit=settings.rate_limit_global,
        )
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_body_bytes, streamed=streamed)
    app.add_middleware(AnnouncedLengthMiddleware, max_bytes=settings.max_body_bytes, streamed=streamed)
    app.add_middleware(SchemaGateMiddleware, gate=platform.schema)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=[
                "X-Request-ID",
                "X-Trace-ID",
                "traceresponse",
                "Link",
                "RateLimit-Limit",
                "RateLimit-Remaining",
                "RateLimit-Reset",
            ],
        )
    app.add_middleware(RequestContextMiddleware)
    app.add_middleware(MetricsMiddleware, metrics=HttpMetrics(platform.metrics))
    app.add_middleware(TrailingSlashMiddleware)
