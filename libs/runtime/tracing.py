"""Spans of what is asked of a runtime: one per call, whichever driver takes it, and one per request to a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from libs.runtime.port import DriverError, WorkspaceRef

_TRACER = trace.get_tracer("devpocket.runtime")


@contextmanager
def runtime_call(operation: str, ref: WorkspaceRef) -> Iterator[Span]:
    """Around one call of the runtime port about a workspace."""
    about = {"devpocket.environment.id": ref.environment_id, "devpocket.cluster": ref.cluster}
    with _span(f"runtime.{operation}", SpanKind.INTERNAL, about) as span:
        yield span


@contextmanager
def cluster_request(method: str, path: str) -> Iterator[Span]:
    """Around one request to an API server. What follows the path is left out: it may hold a command."""
    template = _template(path)
    attributes = {"http.request.method": method, "url.template": template}
    with _span(f"{method} {template}", SpanKind.CLIENT, attributes) as span:
        yield span


def answered(span: Span, status: int) -> None:
    """The API server's answer; from 400 on the request has failed."""
    span.set_attribute("http.response.status_code", status)
    if status >= 400:
        span.set_attribute("error.type", str(status))
        span.set_status(Status(StatusCode.ERROR))


@contextmanager
def _span(name: str, kind: SpanKind, attributes: Mapping[str, str]) -> Iterator[Span]:
    with _TRACER.start_as_current_span(
        name, kind=kind, attributes=dict(attributes), record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except Exception as error:
            # The words may quote what users wrote; they are in the log.
            reason = error.reason if isinstance(error, DriverError) else type(error).__qualname__
            span.set_attribute("error.type", reason)
            span.set_status(Status(StatusCode.ERROR))
            raise


def _template(path: str) -> str:
    """`/api/v1/namespaces/x/pods/y/exec` → `/api/v1/namespaces/{namespace}/pods/{name}/exec`."""
    before, found, rest = path.partition("/namespaces/")
    if not found:
        return path
    namespace, *parts = rest.split("/")
    if not parts:
        return f"{before}/namespaces/{{namespace}}"
    named = [parts[0], *(["{name}"] if len(parts) > 1 else []), *parts[2:]]
    return "/".join([f"{before}/namespaces/{{namespace}}" if namespace else before, *named])
