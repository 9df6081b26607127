"""ASGI middleware every service has: request id, access log, tolerant trailing slash, body limit.

Plain ASGI rather than Starlette's BaseHTTPMiddleware, which costs a task and two queues per request.
"""

from __future__ import annotations

import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.common.context import Cause, acting
from libs.common.http.address import client_address
from libs.common.http.problems import problem_response
from libs.common.http.tracing import environment_of, request_span
from libs.common.ids import new_id
from libs.common.telemetry import about_environment, log_scope, trace_answer

_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{8,128}$")
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_QUIET_PATHS = ("/health", "/metrics")

log = structlog.get_logger("access")


class TrailingSlashMiddleware:
    """Lets `/environments` and `/environments/` both answer, without a redirect that clients drop the token on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] in {"http", "websocket"} and len(scope["path"]) > 1 and scope["path"].endswith("/"):
            scope = {**scope, "path": scope["path"].rstrip("/") or "/"}
        await self.app(scope, receive, send)


class RequestContextMiddleware:
    """Gives every request an id and a line in the log, and every answer the ids of request and trace."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        offered = headers.get("x-request-id", "")
        request_id = offered if _REQUEST_ID.match(offered) else new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 0

        with (
            acting(Cause(correlation_id=request_id, address=client_address(scope))),
            log_scope(request_id=request_id, correlation_id=request_id),
            request_span(scope) as opening,
        ):
            ids = {"X-Request-ID": request_id, **trace_answer()}
            environment_id = environment_of(scope["path"])
            if environment_id is not None:
                about_environment(environment_id)

            async def send_with_ids(message: Message) -> None:
                nonlocal status
                if message["type"] in _STARTS:
                    status = message.get("status", 101)
                    MutableHeaders(scope=message).update(ids)
                await send(message)
                if opening is not None and message["type"] in _STARTS:
                    opening.sent(message)
                    # The line with the outcome comes at the end, which may be in hours.
                    log.info("connection opened", path=scope["path"], status=status)

            try:
                await self.app(scope, receive, send_with_ids)
            finally:
                if not scope["path"].startswith(_QUIET_PATHS):
                    _log_access(scope, status, started)


def _log_access(scope: Scope, status: int, started: float) -> None:
    client = scope.get("client")
    log.info(
        "request",
        method=scope.get("method", "WS"),
        path=scope["path"],
        status=status,
        duration_ms=round((time.perf_counter() - started) * 1000, 2),
        client=client[0] if client else None,
    )


class AnnouncedLengthMiddleware:
    """Answers 413 as a problem to a Content-Length above `max_bytes`.

    Bodies of unknown length are counted by Starlette's own limit, whose answer to an announced length is plain text.
    `streamed`: paths that are left alone, because their routes take bodies in pieces and limit them themselves.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, streamed: re.Pattern[str] | None = None) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] == "http" and not _matches(self.streamed, scope):
            announced = Headers(scope=scope).get("content-length", "")
            if announced.isdigit() and int(announced) > self.max_bytes:
                detail = f"The body is larger than the {self.max_bytes} bytes allowed"
                request_id = scope["state"].get("request_id")
                answer = problem_response(413, "content_too_large", detail, request_id=request_id)
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)


class BodyLimitMiddleware(RequestBodyLimitMiddleware):
    """Starlette's limit of what arrives. `streamed` as above."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, streamed: re.Pattern[str] | None = None) -> None:
        super().__init__(app, max_bytes)
        self.streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] == "http" and _matches(self.streamed, scope):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _matches(paths: re.Pattern[str] | None, scope: Scope) -> bool:
    return paths is not None and paths.fullmatch(scope["path"]) is not None
