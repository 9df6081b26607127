"""Spans of requests. FastAPI opens those of HTTP; that of a WebSocket, or of a stream of events, ends with its opening:
connections last for hours, and nobody would see anything of them before they are over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi.telemetry import TelemetryConfig
from opentelemetry import propagate
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from starlette.datastructures import Headers
from starlette.types import Message, Scope

from libs.common.telemetry import mute, tracer

_STREAMS = re.compile(r"^/api/v1/events/?$")


def _lasts(scope: Scope) -> bool:
    return scope["type"] == "websocket" or _STREAMS.match(scope["path"]) is not None


# For FastAPI: the server's span only, without one for each function that it calls, and no records of exceptions, whose
# words may quote what users sent.
FASTAPI_TELEMETRY: TelemetryConfig = {
    "operation_spans": False,
    "logs": False,
    "metrics": False,
    "exclude": _lasts,
}
_ABOUT_ENVIRONMENT = re.compile(
    r"^/(?:api/v1/(?:environments|ws/[a-z]+|admin/environments)|preview)/([0-9a-f]{32})(?:/|$)"
)
_ANSWERED = {"websocket.accept": 101, "websocket.close": 403}


def environment_of(path: str) -> str | None:
    """The environment that a request to this path is about; None when the path names none."""
    match = _ABOUT_ENVIRONMENT.match(path)
    return match[1] if match else None


@contextmanager
def request_span(scope: Scope) -> Iterator[Opening | None]:
    """Around what lasts; other requests have their span already."""
    if not _lasts(scope):
        yield None
        return
    attributes: dict[str, str] = {"url.scheme": scope["scheme"], "url.path": scope["path"]}
    if scope["type"] == "websocket":
        attributes["network.protocol.name"] = "websocket"
    else:
        attributes["http.request.method"] = scope["method"]
    with tracer().start_as_current_span(
        _method(scope),
        propagate.extract(Headers(scope=scope)),
        SpanKind.SERVER,
        attributes,
        record_exception=False,
        set_status_on_exception=False,
        end_on_exit=False,
    ) as span:
        opening = Opening(scope, span)
        try:
            yield opening
        finally:
            opening.end(None)


def _method(scope: Scope) -> str:
    method: str = scope.get("method", "WS")
    return method


class Opening:
    """The span of one connection, until it is accepted or refused."""

    def __init__(self, scope: Scope, span: Span) -> None:
        self._scope = scope
        self._span = span
        self._is_over = False

    def sent(self, message: Message) -> None:
        """The service's answer ends the span. What follows goes by its ids, and leaves no spans for each keystroke."""
        if self._is_over:
            return
        status = message.get("status") or _ANSWERED.get(message["type"])
        if status is not None:
            self.end(status)
            mute()

    def end(self, status: int | None) -> None:
        """`status` None: there was no answer. Nothing happens the second time."""
        if self._is_over:
            return
        self._is_over = True
        route = getattr(self._scope.get("route"), "path", None)
        if route is not None:
            self._span.set_attribute("http.route", route)
            self._span.update_name(f"{_method(self._scope)} {route}")
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if status is None or status >= 500:
            self._span.set_attribute("error.type", str(status or "no_answer"))
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()
