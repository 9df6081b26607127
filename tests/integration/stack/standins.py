"""Services that are not ours, for a real supervisor and a real gateway: they say what reached them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from libs.cli.stack.specs import ServiceSpec

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
_METHODS = ["GET", "POST", "PATCH", "DELETE"]


def _echo(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def echo(request: Request) -> Response:
        body = await request.body()
        answer = {
            "service": name,
            "pid": os.getpid(),
            "path": request.url.path,
            "headers": dict(request.headers),
            "body_bytes": len(body),
        }
        # A gateway that only added its own headers would send these twice.
        ours = {"X-Frame-Options": "SAMEORIGIN", "X-Request-ID": "from-the-service", "X-Trace-ID": TRACE_ID}
        return JSONResponse(answer, headers=ours)

    return echo


async def _ready(_request: Request) -> Response:
    return JSONResponse({"status": "ready", "checks": {}})


async def _stream(_request: Request) -> Response:
    async def events() -> AsyncIterator[bytes]:
        yield b"data: first\n\n"
        # No second event: a gateway that buffers would hold the first one back for ever.
        await asyncio.Event().wait()

    return StreamingResponse(events(), media_type="text/event-stream")


async def _socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json({"headers": dict(websocket.headers)})
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") is not None:
            await websocket.send_text(message["text"])
        else:
            await websocket.send_bytes(message["bytes"])


def _app(name: str) -> Starlette:
    return Starlette(
        routes=[
            Route("/health/ready", _ready),
            Route("/api/v1/events", _stream),
            WebSocketRoute("/api/v1/ws/terminal/{environment}", _socket),
            Route("/{path:path}", _echo(name), methods=_METHODS),
        ]
    )


def auth() -> Starlette:
    """In auth's place."""
    return _app("auth")


def envs() -> Starlette:
    """In envs' place."""
    return _app("envs")


def orchestrator() -> Starlette:
    """In the orchestrator's place."""
    return _app("orchestrator")


def terminal() -> Starlette:
    """In terminal's place."""
    return _app("terminal")


def never_ready() -> Starlette:
    """Starts, and waits for something that does not come."""

    async def not_ready(_request: Request) -> Response:
        return JSONResponse({"status": "starting", "checks": {"database": "unhealthy"}}, 503)

    sys.stdout.write("waiting for the database\n")
    sys.stdout.flush()
    return Starlette(routes=[Route("/health/ready", not_ready)])


def breakable() -> Starlette:
    """In envs' place, until somebody has broken its code."""
    if Path("broken").exists():
        raise RuntimeError("this version is broken")
    return _app("envs")


def _specs(**changed: str) -> tuple[ServiceSpec, ...]:
    names = ("auth", "envs", "orchestrator", "terminal")
    return tuple(ServiceSpec(name, f"{__name__}:{changed.get(name, name)}") for name in names)


STANDINS = _specs()
ONE_NEVER_READY = _specs(envs="never_ready")
ONE_BREAKABLE = _specs(envs="breakable")
ONE_CRASHES = _specs(envs="no_such_factory")
