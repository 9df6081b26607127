"""A collector for tests: takes OTLP over HTTP as a real one would, and keeps the spans."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.app import eventually

PATH = "/v1/traces"


@dataclass(frozen=True)
class Seen:
    """One span. Ids are hex digits; `parent_id` is empty for a root. Attributes of the resource are `resource`."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    is_error: bool
    attributes: dict[str, str | int | float | bool]
    events: tuple[str, ...]
    resource: dict[str, str | int | float | bool] = field(repr=False)
    start_ns: int = 0
    end_ns: int = 0


class Collector:
    """What was received. `answer`: the status of answers from now on; `headers`: of the newest request."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answer = 200
        self.requests = 0
        self.headers: dict[str, str] = {}
        self._bodies: list[bytes] = []
        self._lock = threading.Lock()

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        """One request."""
        with self._lock:
            self.requests += 1
            self.headers = headers
            if self.answer == 200:
                self._bodies.append(gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body)

    def spans(self, trace_id: str | None = None) -> list[Seen]:
        """All, or those of one trace, in the order of their beginning."""
        with self._lock:
            bodies = list(self._bodies)
        wanted = bytes.fromhex(trace_id) if trace_id is not None else None
        found = [span for body in bodies if wanted is None or wanted in body for span in _read(body)]
        return sorted((span for span in found if trace_id in (None, span.trace_id)), key=lambda span: span.start_ns)


async def until(done: Callable[[], bool]) -> None:
    """Until what is looked at here is so. Raises TimeoutError."""

    async def look() -> bool:
        return done()

    await eventually(look)


def _read(body: bytes) -> Iterator[Seen]:
    request = ExportTraceServiceRequest()
    request.ParseFromString(body)  # type: ignore[no-untyped-call]
    for of_process in request.resource_spans:
        resource = _attributes(of_process.resource.attributes)
        for of_scope in of_process.scope_spans:
            for span in of_scope.spans:
                yield _seen(span, resource)


def _seen(span: Span, resource: dict[str, str | int | float | bool]) -> Seen:
    return Seen(
        service=str(resource.get("service.name", "")),
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        attributes=_attributes(span.attributes),
        events=tuple(event.name for event in span.events),
        resource=resource,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
    )


def _attributes(pairs: Sequence[KeyValue]) -> dict[str, str | int | float | bool]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> str | int | float | bool:
    kind = value.WhichOneof("value")
    found = getattr(value, kind) if kind else ""
    return found if isinstance(found, str | int | float | bool) else str(found)


@contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    """A collector on loopback; `port` 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = collector.answer if self.path == PATH else 404
            collector.take(body, {name.lower(): value for name, value in self.headers.items()})
            # The message that says that all were taken has no field, and no bytes.
            answer = b""
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
