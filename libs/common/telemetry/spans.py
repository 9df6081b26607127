"""Spans around work, and trace context on its way with messages. Names and attributes: OpenTelemetry's conventions.

Errors are recorded by their type. Their words, which may quote what users wrote, are in the logs of the same trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import structlog
from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from libs.common.telemetry.logs import ENVIRONMENT_ID, log_scope

# Aggregates whose id is an environment's.
_OF_ENVIRONMENTS = frozenset({"env", "runtime", "terminal"})
_MUTED = TraceFlags(TraceFlags.DEFAULT)
# How `traceparent` ends then; the second flag says that the id is a random one.
_NOT_RECORDED = ("-00", "-02")

Attributes = Mapping[str, AttributeValue]


def tracer() -> trace.Tracer:
    """The tracer of this process."""
    return trace.get_tracer("devpocket")


def trace_headers() -> dict[str, str]:
    """W3C trace context (`traceparent`, `tracestate`) of the current span, for a message that leaves the process."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def trace_answer() -> dict[str, str]:
    """Headers of an HTTP answer: the trace's id alone, and a `traceresponse` as W3C Trace Context level 2 drafts it."""
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return {}
    trace_id = f"{current.trace_id:032x}"
    return {
        "X-Trace-ID": trace_id,
        "traceresponse": f"00-{trace_id}-{current.span_id:016x}-{current.trace_flags & TraceFlags.SAMPLED:02x}",
    }


@contextmanager
def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: otel_context.Context | None = None,
) -> Iterator[Span]:
    """A span around the block, below the current one or `parent`; an exception marks it as failed and passes."""
    with tracer().start_as_current_span(
        name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except Exception as error:
            fail_span(current, error)
            raise


def fail_span(failed: Span, error: BaseException) -> None:
    """The work of this span did not succeed."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    failed.set_attribute("error.type", name)
    failed.set_status(Status(StatusCode.ERROR))


@contextmanager
def continued_trace(name: str, headers: Mapping[str, str], *, quiet: bool = False) -> Iterator[None]:
    """A span below the one whose `trace_headers` were kept: for work that goes on after its message is handled.

    `quiet`: for work that is done again and again, which keeps the ids and is not recorded.
    """
    parent = propagate.extract(headers)
    if quiet:
        with muted(trace.get_current_span(parent).get_span_context()):
            yield
        return
    with span(name, parent=parent):
        yield


@contextmanager
def muted(kept: SpanContext | None = None) -> Iterator[None]:
    """Work within goes by the ids of `kept`, or of the current span, and leaves no spans."""
    before = otel_context.get_current()
    mute(kept)
    try:
        yield
    finally:
        otel_context.attach(before)


def mute(kept: SpanContext | None = None) -> None:
    """As `muted`, for the rest of the span around it."""
    kept = kept or trace.get_current_span().get_span_context()
    silent = SpanContext(kept.trace_id, kept.span_id, kept.is_remote, _MUTED)
    otel_context.attach(trace.set_span_in_context(NonRecordingSpan(silent)))


@contextmanager
def publishing(subject: str, event_id: str, headers: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A span below the one whose `trace_headers` were kept with the event; yields the headers of the message.

    Nothing is done for a trace that is not recorded: the headers are good as they are.
    """
    if headers.get("traceparent", "").endswith(_NOT_RECORDED):
        yield dict(headers)
        return
    attributes = {**_message(subject), "messaging.operation.name": "publish", "messaging.operation.type": "send"}
    attributes["messaging.message.id"] = event_id
    name = f"publish {attributes['messaging.destination.template']}"
    with span(name, attributes, kind=SpanKind.PRODUCER, parent=propagate.extract(headers)):
        yield {**headers, **trace_headers()}


@contextmanager
def handling(subject: str, consumer: str, headers: Mapping[str, str]) -> Iterator[Span]:
    """A span below the one that published the message; lines within say which environment it is about, if any."""
    attributes = {**_message(subject), "messaging.operation.name": "process", "messaging.operation.type": "process"}
    attributes["messaging.consumer.group.name"] = consumer
    event_id = headers.get("Nats-Msg-Id")
    if event_id is not None:
        attributes["messaging.message.id"] = event_id
    environment_id = attributes.get(ENVIRONMENT_ID)
    name = f"process {attributes['messaging.destination.template']}"
    with (
        log_scope(**({"environment_id": environment_id} if environment_id else {})),
        span(name, attributes, kind=SpanKind.CONSUMER, parent=propagate.extract(headers)) as current,
    ):
        yield current


def explain(event_type: str, correlation_id: str | None) -> None:
    """Within `handling`, once the event is read: what it is, and which request or job began it all."""
    structlog.contextvars.bind_contextvars(correlation_id=correlation_id, event_type=event_type)


def _message(subject: str) -> dict[str, str]:
    attributes = {"messaging.system": "nats", "messaging.destination.name": subject}
    tokens = subject.split(".")
    if len(tokens) != 4:
        return {**attributes, "messaging.destination.template": tokens[0]}
    aggregate, about = tokens[1:3]
    attributes["messaging.destination.template"] = f"{tokens[0]}.{aggregate}.*.{tokens[3]}"
    if aggregate in _OF_ENVIRONMENTS:
        attributes[ENVIRONMENT_ID] = about
    return attributes
