"""Structured logs with trace ids, and the tracer every service uses.

One log line is one JSON object (LOG_FORMAT=json) or a coloured line (console). Whatever is bound with
`structlog.contextvars` (request id, environment id) and the current trace and span id ride along.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog
from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from libs.common.settings import CommonSettings

_SECRET_WORDS = ("password", "secret", "token", "authorization", "ticket", "api_key")
_TRACE_CONTEXT = TraceContextTextMapPropagator()
_NOISY_LOGGERS = ("uvicorn.access", "httpx", "httpcore", "pymongo", "nats")


def configure_telemetry(service: str, settings: CommonSettings, *, stream: TextIO | None = None) -> None:
    """Set up logs and tracing for this process. `stream` defaults to standard error."""
    _configure_logging(service, settings, stream or sys.stderr)
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider(resource=Resource.create({"service.name": f"devpocket-{service}"})))


def _configure_logging(service: str, settings: CommonSettings, stream: TextIO) -> None:
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
        _drop_secrets,
        _Constant("service", service),
    ]
    renderer: structlog.typing.Processor
    if settings.log_format == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    else:
        # The default shows the values of all local variables: they hold tokens, and rendering them takes seconds.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    server = logging.getLogger("uvicorn.error")
    server.removeFilter(_is_no_handshake_line)
    server.addFilter(_is_no_handshake_line)


def _is_no_handshake_line(record: logging.LogRecord) -> bool:
    """Drop uvicorn's line per WebSocket: it shows the query, where clients put tokens. Our access log has the path."""
    return not (isinstance(record.msg, str) and record.msg.startswith('%s - "WebSocket'))


class _Constant:
    def __init__(self, key: str, value: str) -> None:
        self._key = key
        self._value = value

    def __call__(self, _logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event[self._key] = self._value
        return event


def _add_trace(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format(context.trace_id, "032x")
        event["span_id"] = format(context.span_id, "016x")
    return event


def _drop_secrets(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The last line of defence: a field that is named like a secret never reaches the log."""
    for key in event:
        if any(word in key.lower() for word in _SECRET_WORDS):
            event[key] = "[redacted]"
    return event


def tracer() -> trace.Tracer:
    """The tracer of this process."""
    return trace.get_tracer("devpocket")


def trace_headers() -> dict[str, str]:
    """W3C trace context (`traceparent`, `tracestate`) of the current span, for a message that leaves the process."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


@contextmanager
def continued_trace(name: str, headers: Mapping[str, str]) -> Iterator[None]:
    """A span below the one whose `trace_headers` were kept: for work that goes on after its message is handled."""
    with tracer().start_as_current_span(name, context=propagate.extract(headers)):
        yield


@contextmanager
def handling(event_type: str, correlation_id: str | None, headers: Mapping[str, str]) -> Iterator[None]:
    """A span below the one that published the event; logs within carry the correlation id."""
    parent = _TRACE_CONTEXT.extract(headers) if "traceparent" in headers else None
    tokens = structlog.contextvars.bind_contextvars(correlation_id=correlation_id, event_type=event_type)
    try:
        with tracer().start_as_current_span(f"handle {event_type}", context=parent):
            yield
    finally:
        structlog.contextvars.reset_contextvars(**tokens)
