"""Spans of the clients of MongoDB, Redis and HTTP; only while spans go somewhere.

MongoDB's are made here: the instrumentation library would name them the old way and quote the server's errors, which
hold values. No span holds a statement's values: they are what users wrote.
"""

from __future__ import annotations

import os

from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from pymongo import monitoring

# Attributes as they are called since the conventions are stable; the libraries still default to the names before.
_STABLE_NAMES = ("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")


def instrument_clients(provider: TracerProvider) -> None:
    """For clients made from now on."""
    os.environ.setdefault(*_STABLE_NAMES)
    RedisInstrumentor().instrument(tracer_provider=provider)
    HTTPXClientInstrumentor().instrument(tracer_provider=provider)
    monitoring.register(MongoSpans(provider.get_tracer("devpocket.mongodb")))


class MongoSpans(monitoring.CommandListener):
    """One span per command within a span that is recorded. The driver calls this in the context of the caller."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._open: dict[int, Span] = {}

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """See CommandListener."""
        if not trace.get_current_span().is_recording():
            return
        attributes: dict[str, str | int] = {
            "db.system.name": "mongodb",
            "db.namespace": event.database_name,
            "db.operation.name": event.command_name,
            "server.address": event.connection_id[0],
        }
        if event.connection_id[1] is not None:
            attributes["server.port"] = event.connection_id[1]
        name = event.command_name
        # The first field of a command is its own name; a `getMore` has the collection beside it.
        collection = event.command.get("collection", event.command.get(event.command_name))
        if isinstance(collection, str):
            attributes["db.collection.name"] = collection
            name = f"{name} {collection}"
        self._open[event.request_id] = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """See CommandListener."""
        span = self._open.pop(event.request_id, None)
        if span is not None:
            span.end()

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """See CommandListener."""
        span = self._open.pop(event.request_id, None)
        if span is None:
            return
        code = event.failure.get("code")
        if code is not None:
            span.set_attribute("db.response.status_code", str(code))
        kind = event.failure.get("codeName") or event.failure.get("errtype") or code or "_OTHER"
        span.set_attribute("error.type", str(kind))
        span.set_status(Status(StatusCode.ERROR))
        span.end()
