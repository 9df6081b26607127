"""Spans: what they are called, whose children they are, and what they keep to themselves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import DEFAULT_ON
from opentelemetry.trace import SpanKind, StatusCode
from pymongo.monitoring import CommandFailedEvent, CommandStartedEvent, CommandSucceededEvent

from libs.common.http.tracing import environment_of
from libs.common.ids import new_id
from libs.common.telemetry import spans
from libs.common.telemetry.instruments import MongoSpans
from libs.common.telemetry.sampling import EdgeSampler, IdsOnly

_SERVER = ("db.example", 27017)


class Recorder:
    """What a process would send."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=EdgeSampler(DEFAULT_ON), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    recorder = Recorder()
    monkeypatch.setattr(spans, "tracer", lambda: recorder.tracer)
    yield recorder
    structlog.contextvars.clear_contextvars()


class TestAnEventOnItsWay:
    def test_leads_from_the_write_over_publishing_to_its_handling(self, recorder: Recorder) -> None:
        environment_id = new_id()
        subject = f"devpocket.env.{environment_id}.created"
        with spans.span("POST"):
            kept = {**spans.trace_headers(), "Nats-Msg-Id": "1"}
        with spans.publishing(subject, "1", kept) as headers:
            assert headers["Nats-Msg-Id"] == "1"
        with spans.handling(subject, "orchestrator-environments", headers):
            bound = structlog.contextvars.get_contextvars()
        posted, published, handled = recorder.spans
        assert [span.name for span in (published, handled)] == [
            "publish devpocket.env.*.created",
            "process devpocket.env.*.created",
        ]
        assert (published.kind, handled.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
        assert published.parent is not None
        assert published.parent.span_id == posted.context.span_id
        assert handled.parent is not None
        assert handled.parent.span_id == published.context.span_id
        assert {span.context.trace_id for span in recorder.spans} == {posted.context.trace_id}
        assert dict(handled.attributes or {}) == {
            "messaging.system": "nats",
            "messaging.destination.name": subject,
            "messaging.destination.template": "devpocket.env.*.created",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": "orchestrator-environments",
            "messaging.message.id": "1",
            "devpocket.environment.id": environment_id,
        }
        assert bound == {"environment_id": environment_id}

    def test_costs_nothing_where_the_trace_is_not_recorded(self, recorder: Recorder) -> None:
        tracer = TracerProvider(sampler=IdsOnly(), shutdown_on_exit=False).get_tracer("test")
        with tracer.start_as_current_span("POST"):
            kept = spans.trace_headers()
        with spans.publishing(f"devpocket.env.{new_id()}.created", "1", kept) as headers:
            assert headers == kept
        assert recorder.spans == ()

    def test_is_about_an_environment_only_where_its_subject_says_so(self, recorder: Recorder) -> None:
        with spans.handling("devpocket.user.u1.registered", "envs-users", {}):
            assert structlog.contextvars.get_contextvars() == {}
        assert "devpocket.environment.id" not in (recorder.spans[0].attributes or {})

    def test_leaves_nothing_bound_for_the_next_one(self, recorder: Recorder) -> None:
        structlog.contextvars.bind_contextvars(replica="r1")
        with spans.handling(f"devpocket.env.{new_id()}.created", "x", {}):
            spans.explain("devpocket.env.created.v1", "request-1")
            assert structlog.contextvars.get_contextvars()["correlation_id"] == "request-1"
        assert structlog.contextvars.get_contextvars() == {"replica": "r1"}


class TestAFailure:
    def test_is_told_by_its_type_and_not_by_its_words(self, recorder: Recorder) -> None:
        with pytest.raises(LookupError), spans.span("work"):
            raise LookupError("what a user wrote")
        (span,) = recorder.spans
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
        assert dict(span.attributes or {}) == {"error.type": "LookupError"}
        assert span.events == ()


class TestWorkThatComesAgainAndAgain:
    def test_goes_by_the_ids_of_its_wish_and_leaves_no_spans(self, recorder: Recorder) -> None:
        with spans.span("POST") as begun:
            kept = spans.trace_headers()
        with spans.continued_trace("reconcile", kept, quiet=True), spans.span("below"):
            inside = trace.get_current_span().get_span_context()
        assert inside.trace_id == begun.get_span_context().trace_id
        assert [span.name for span in recorder.spans] == ["POST"]
        with spans.continued_trace("reconcile", kept):
            pass
        assert [span.name for span in recorder.spans] == ["POST", "reconcile"]


class TestAnAnswer:
    def test_names_its_trace(self, recorder: Recorder) -> None:
        with spans.span("GET") as span:
            context = span.get_span_context()
            trace_id = f"{context.trace_id:032x}"
            assert spans.trace_answer() == {
                "X-Trace-ID": trace_id,
                "traceresponse": f"00-{trace_id}-{context.span_id:016x}-01",
            }
        assert spans.trace_answer() == {}


class TestMongoDB:
    def _listener(self, recorder: Recorder) -> MongoSpans:
        return MongoSpans(recorder.tracer)

    def test_names_what_was_done_where_and_no_values(self, recorder: Recorder) -> None:
        listener = self._listener(recorder)
        command = {"find": "environments", "filter": {"name": "what a user wrote"}}
        with spans.span("GET"):
            listener.started(CommandStartedEvent(command, "devpocket_envs", 7, _SERVER, 7))
            listener.succeeded(CommandSucceededEvent(_soon(), {"ok": 1}, "find", 7, _SERVER, 7))
        span = recorder.spans[0]
        assert (span.name, span.kind) == ("find environments", SpanKind.CLIENT)
        assert dict(span.attributes or {}) == {
            "db.system.name": "mongodb",
            "db.namespace": "devpocket_envs",
            "db.operation.name": "find",
            "db.collection.name": "environments",
            "server.address": "db.example",
            "server.port": 27017,
        }

    def test_tells_of_a_failure_by_its_code(self, recorder: Recorder) -> None:
        listener = self._listener(recorder)
        failure = {"ok": 0, "code": 11000, "codeName": "DuplicateKey", "errmsg": "dup key: { name: 'secret' }"}
        with spans.span("POST"):
            listener.started(CommandStartedEvent({"insert": "users"}, "devpocket_auth", 8, _SERVER, 8))
            listener.failed(CommandFailedEvent(_soon(), failure, "insert", 8, _SERVER, 8))
        span = recorder.spans[0]
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "DuplicateKey"
        assert (span.attributes or {})["db.response.status_code"] == "11000"
        assert "secret" not in span.to_json()

    def test_is_not_told_of_outside_of_a_story(self, recorder: Recorder) -> None:
        listener = self._listener(recorder)
        listener.started(CommandStartedEvent({"ping": 1}, "admin", 9, _SERVER, 9))
        listener.succeeded(CommandSucceededEvent(_soon(), {"ok": 1}, "ping", 9, _SERVER, 9))
        assert recorder.spans == ()


def _soon() -> timedelta:
    return timedelta(milliseconds=1)


_ID = "01a228d7a95875488ce4bc57e7f794cd"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/api/v1/environments/{_ID}", _ID),
        (f"/api/v1/environments/{_ID}/files/a/b", _ID),
        (f"/api/v1/ws/terminal/{_ID}", _ID),
        (f"/preview/{_ID}/3000/", _ID),
        ("/api/v1/environments", None),
        ("/api/v1/environments/anything", None),
        (f"/api/v1/users/{_ID}", None),
    ],
)
def test_a_path_says_which_environment_a_request_is_about(path: str, expected: str | None) -> None:
    assert environment_of(path) == expected
