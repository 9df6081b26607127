"""Who stands behind the gateway in tests: says what reached it, streams, takes files, echoes over WebSocket."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.support.servers import free_port

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
_PIECE = b"x" * 65536
_START_TIMEOUT_S = 60.0


async def _echo(request: Request) -> Response:
    received = 0
    async for piece in request.stream():
        received += len(piece)
    return JSONResponse({"path": request.url.path, "headers": dict(request.headers), "body_bytes": received})


async def _events(_request: Request) -> Response:
    async def events() -> AsyncIterator[bytes]:
        yield b"data: first\n\n"
        await asyncio.Event().wait()

    return StreamingResponse(events(), media_type="text/event-stream")


async def _download(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(int(request.query_params["pieces"])):
            yield _PIECE

    return StreamingResponse(pieces(), media_type="application/octet-stream")


async def _socket(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


_APP = Starlette(
    routes=[
        Route("/api/v1/events", _events),
        Route("/api/v1/environments/7/files/large", _download),
        WebSocketRoute("/api/v1/ws/{rest:path}", _socket),
        WebSocketRoute("/preview/{rest:path}", _socket),
        Route("/{path:path}", _echo, methods=_METHODS),
    ]
)


@contextmanager
def running_backend() -> Iterator[str]:
    """Its address, host:port. It trusts what the gateway says about a client, as services do."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(_APP, port=port, log_level="error", ws="websockets-sansio", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not server.started:
        assert time.monotonic() < deadline, "the backend does not start"
        time.sleep(0.01)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
