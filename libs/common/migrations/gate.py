"""Between clients and a service whose database is not ready for it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from libs.common.http.problems import RETRY_AFTER_UNAVAILABLE_S, problem_response
from libs.common.migrations.plan import Backfill
from libs.common.migrations.runner import Migrations
from libs.common.mongo import Database

_PASSING = ("/health", "/metrics")
_STARTING = "The service is starting, please try again in a moment"
# RFC 6455: try again later.
_WEBSOCKET_LATER = 1013


class SchemaGate:
    """Open until a service starts, and again once its database is what it works on."""

    def __init__(self, database: Database, migrations: Sequence[Backfill]) -> None:
        self.migrations = Migrations(database, migrations)
        self.is_open = True

    def close(self) -> None:
        """The service begins to start."""
        self.is_open = False

    async def pass_through(self) -> None:
        """Check, run what is blocking, open. Raises SchemaNotReadyError."""
        await self.migrations.check()
        await self.migrations.finish_blocking()
        self.is_open = True


class SchemaGateMiddleware:
    """Answers 503 to everything but health while the gate is closed: nothing may read or write the wrong shape."""

    def __init__(self, app: ASGIApp, gate: SchemaGate) -> None:
        self.app = app
        self.gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if self.gate.is_open or scope["type"] == "lifespan" or scope["path"].startswith(_PASSING):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": _WEBSOCKET_LATER, "reason": _STARTING})
        else:
            request_id = scope["state"].get("request_id")
            later = {"Retry-After": RETRY_AFTER_UNAVAILABLE_S}
            answer = problem_response(503, "unavailable", _STARTING, request_id=request_id, headers=later)
            await answer(scope, receive, send)
