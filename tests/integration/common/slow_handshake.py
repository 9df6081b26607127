"""A service whose WebSockets take their time to open, and which refuses those that come after its goodbye."""

from __future__ import annotations

import asyncio
import contextlib

from fastapi import FastAPI, WebSocket

from libs.common.http.departure import Departure

# Longer than a server that does not wait for it takes from the announcement to the goodbye.
_OPENING_S = 1.0


def create_app() -> FastAPI:
    """`GET /` answers how many are being opened."""
    app = FastAPI()
    app.state.departure = departure = Departure()
    announced, over = asyncio.Event(), asyncio.Event()
    opening: set[WebSocket] = set()

    async def goodbye(_patience_s: float) -> None:
        over.set()

    departure.announce_by(announced.set)
    departure.say_by(goodbye)

    @app.get("/")
    async def count() -> int:
        return len(opening)

    @app.websocket("/socket")
    async def serve(socket: WebSocket) -> None:
        opening.add(socket)
        await announced.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _OPENING_S)
            await socket.close()
            return
        await socket.accept()
        await over.wait()
        await socket.close(1001)

    return app
