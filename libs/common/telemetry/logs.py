"""Structured logs: one line is one JSON object (LOG_FORMAT=json) or a coloured line (console).

Whatever is bound with `structlog.contextvars` (request id, correlation id, environment id) and the current trace and
span id ride along, so that one id finds the story in the logs of all services.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog
from opentelemetry import trace
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

_SECRET_WORDS = ("password", "secret", "token", "authorization", "ticket", "api_key")
_NOISY_LOGGERS = ("uvicorn.access", "httpx", "httpcore", "pymongo", "nats")
ENVIRONMENT_ID = "devpocket.environment.id"


@contextmanager
def log_scope(**fields: Any) -> Iterator[None]:
    """Lines within carry `fields`; what is bound within, e.g. by `about_environment`, ends with the block."""
    before = get_contextvars()
    bind_contextvars(**fields)
    try:
        yield
    finally:
        clear_contextvars()
        bind_contextvars(**before)


def about_environment(environment_id: str) -> None:
    """The work at hand is about this environment: lines from now on say so, and the current span does."""
    bind_contextvars(environment_id=environment_id)
    trace.get_current_span().set_attribute(ENVIRONMENT_ID, environment_id)


def configure_logging(service: str, stream: TextIO, *, log_format: str = "console", log_level: str = "INFO") -> None:
    """Log lines of this process go to `stream`. `log_format`: json or console."""
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
    if log_format == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    else:
        # The default shows the values of all local variables: they hold tokens, and rendering them takes seconds.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(log_level)),
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
    root.setLevel(log_level)
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
