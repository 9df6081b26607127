"""GET /metrics, on the service's own port and, where METRICS_PORT is set, on one that serves nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
import uvicorn
from fastapi import APIRouter, Response
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from libs.common.metrics.registry import CONTENT_TYPE, Metrics

PATH = "/metrics"

log = structlog.get_logger(__name__)


def metrics_router(metrics: Metrics) -> APIRouter:
    """Public as /health is, and like it out of reach through the gateway; in no contract."""
    router = APIRouter()

    @router.get(PATH, include_in_schema=False)
    async def get_metrics() -> Response:
        return Response(await metrics.exposition(), media_type=CONTENT_TYPE)

    return router


class _InnerServer(uvicorn.Server):
    """A server inside another's process, which alone hears signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


@asynccontextmanager
async def metrics_server(metrics: Metrics, address: str, port: int | None) -> AsyncIterator[None]:
    """Serve /metrics there for the length of the block; with None nothing. Raises OSError when the port is taken."""
    if port is None:
        yield
        return
    listening = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)

    async def answer(_: Request) -> Response:
        return Response(await metrics.exposition(), media_type=CONTENT_TYPE)

    app = Starlette(routes=[Route(PATH, answer)])
    server = _InnerServer(
        uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=1)
    )
    serving = asyncio.create_task(server.serve([listening]))
    log.info("metrics are served", port=port)
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        listening.close()
