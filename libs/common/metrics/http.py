"""Requests and WebSockets, counted around everything that may answer one."""

from __future__ import annotations

import time
from collections import Counter as Tally

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.common.metrics.families import Family, Values
from libs.common.metrics.registry import Metrics

# Probes and scrapes would be most of what a quiet service answers.
_NOT_COUNTED = ("/health", "/metrics")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# What no route takes: scanners, and refusals before anybody looked at the path.
_UNMATCHED = "unmatched"
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IN_PROGRESS = Family("devpocket_http_requests_in_progress", "HTTP requests that are being answered now.")
_CONNECTIONS = Family("devpocket_websocket_connections", "WebSockets that are open now.", ("route",))


class HttpMetrics:
    """The counters of one service."""

    def __init__(self, metrics: Metrics) -> None:
        self.in_progress = 0
        self.open: Tally[str] = Tally()
        self._requests: dict[tuple[str, str, int], Counter] = {}
        self._durations: dict[tuple[str, str], Histogram] = {}
        self._counter, self._histogram, self._sockets = _made(metrics.registry)
        metrics.read([_IN_PROGRESS, _CONNECTIONS], self._now)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; its answer began after so many seconds."""
        # Children by the metric's own `labels` cost twice as much.
        request, duration = (method, route, status), (method, route)
        if request not in self._requests:
            self._requests[request] = self._counter.labels(method, route, str(status))
        self._requests[request].inc()
        if duration not in self._durations:
            self._durations[duration] = self._histogram.labels(method, route)
        self._durations[duration].observe(seconds)

    def socket_ended(self, route: str, code: str) -> None:
        """A WebSocket is closed, or was refused."""
        self._sockets.labels(route, code).inc()

    def _now(self) -> Values:
        return {
            _IN_PROGRESS.name: {(): self.in_progress},
            _CONNECTIONS.name: {(route,): count for route, count in self.open.items()},
        }


class MetricsMiddleware:
    """Counts by the template of the route, never by the path: that would be a time series for each environment."""

    def __init__(self, app: ASGIApp, *, metrics: HttpMetrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http" and not scope["path"].startswith(_NOT_COUNTED):
            await self._request(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        metrics = self._metrics
        started = time.perf_counter()
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                metrics.answered(_method(scope), _route(scope), message["status"], time.perf_counter() - started)
            await send(message)

        metrics.in_progress += 1
        try:
            await self.app(scope, receive, sending)
        except Exception:
            # Starlette answers it, further out.
            if not begun:
                metrics.answered(_method(scope), _route(scope), 500, time.perf_counter() - started)
            raise
        finally:
            metrics.in_progress -= 1

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        metrics = self._metrics
        # What is said last counts; a service that says nothing was left by its client.
        route, code = "", "client"

        async def sending(message: Message) -> None:
            nonlocal route, code
            kind = message["type"]
            if kind == "websocket.accept":
                route = _route(scope)
                metrics.open[route] += 1
            elif kind == "websocket.close":
                code = str(message.get("code", 1000)) if route else "403"
            elif kind == "websocket.http.response.start":
                code = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception:
            code = "error"
            raise
        finally:
            metrics.socket_ended(route or _route(scope), code)
            if route:
                metrics.open[route] -= 1


def _made(registry: CollectorRegistry) -> tuple[Counter, Histogram, Counter]:
    return (
        Counter(
            "devpocket_http_requests_total",
            "HTTP requests answered, by the template of their route.",
            ("method", "route", "status"),
            registry=registry,
        ),
        Histogram(
            "devpocket_http_request_duration_seconds",
            "Seconds until the answer to an HTTP request begins.",
            ("method", "route"),
            buckets=_BUCKETS_S,
            registry=registry,
        ),
        Counter(
            "devpocket_websockets_ended_total",
            "WebSockets that have ended, by the code we closed them with, the HTTP status we refused them with, "
            "client (it left), or error.",
            ("route", "close_code"),
            registry=registry,
        ),
    )


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in _METHODS else "other"


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path_format", None) or _UNMATCHED
