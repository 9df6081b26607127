"""Which spans are kept, and how little a client has to say about it."""

from __future__ import annotations

import pytest
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, DEFAULT_ON, Sampler, TraceIdRatioBased
from opentelemetry.trace import SpanKind

from libs.common.telemetry.sampling import EdgeSampler, IdsOnly

# Its last eight bytes are zero: every ratio takes it.
_CHOSEN = "0af7651916cd43dd0000000000000000"


class Bench:
    """A provider with the sampler under test."""

    def __init__(self, configured: Sampler) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=EdgeSampler(configured), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")

    def request(self, parent: Context | None = None, path: str = "/api/v1/environments", **more: str) -> trace.Span:
        """The span of a request, over."""
        attributes = {"url.path": path, **more}
        span = self.tracer.start_span("GET", parent or Context(), SpanKind.SERVER, attributes)
        span.end()
        return span


def _from_client(*, flags: str = "01", trace_id: str = _CHOSEN) -> Context:
    return propagate.extract(
        {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-{flags}", "tracestate": "vendor=anything"}
    )


@pytest.mark.parametrize("flags", ["00", "01"])
class TestAClient:
    def test_names_the_trace(self, flags: str) -> None:
        context = Bench(DEFAULT_ON).request(_from_client(flags=flags)).get_span_context()
        assert f"{context.trace_id:032x}" == _CHOSEN

    def test_cannot_have_it_recorded(self, flags: str) -> None:
        assert not Bench(ALWAYS_OFF).request(_from_client(flags=flags)).get_span_context().trace_flags.sampled

    def test_cannot_keep_it_from_being_recorded(self, flags: str) -> None:
        assert Bench(ALWAYS_ON).request(_from_client(flags=flags)).get_span_context().trace_flags.sampled

    def test_cannot_choose_an_id_that_is_recorded(self, flags: str) -> None:
        bench = Bench(TraceIdRatioBased(0.05))
        kept = [bench.request(_from_client(flags=flags)).get_span_context().trace_flags.sampled for _ in range(400)]
        assert 0 < sum(kept) < 100

    def test_has_nothing_carried_along(self, flags: str) -> None:
        assert not Bench(ALWAYS_ON).request(_from_client(flags=flags)).get_span_context().trace_state


class TestWhatFollows:
    @pytest.mark.parametrize(("configured", "expected"), [(ALWAYS_ON, True), (ALWAYS_OFF, False)])
    def test_goes_by_the_beginning(self, configured: Sampler, expected: bool) -> None:
        bench = Bench(configured)
        begun = trace.set_span_in_context(bench.request())
        other = Bench(ALWAYS_ON if configured is ALWAYS_OFF else ALWAYS_OFF)
        below = other.tracer.start_span("process", begun, SpanKind.CONSUMER)
        assert below.get_span_context().trace_flags.sampled is expected


class TestLeftOut:
    def test_the_query_which_may_hold_a_ticket(self) -> None:
        bench = Bench(ALWAYS_ON)
        bench.request(None, "/api/v1/ws/x", **{"url.query": "ticket=s3cret"})
        (span,) = bench.exporter.get_finished_spans()
        assert dict(span.attributes or {}) == {"url.path": "/api/v1/ws/x"}

    @pytest.mark.parametrize("path", ["/health", "/health/ready", "/metrics"])
    def test_what_machines_ask_all_the_time(self, path: str) -> None:
        span = Bench(ALWAYS_ON).request(path=path)
        assert span.get_span_context().is_valid
        assert not span.is_recording()

    def test_a_call_to_a_server_outside_of_any_story(self) -> None:
        bench = Bench(ALWAYS_ON)
        bench.tracer.start_span("find environments", Context(), SpanKind.CLIENT).end()
        inside = trace.set_span_in_context(bench.request())
        bench.tracer.start_span("find templates", inside, SpanKind.CLIENT).end()
        assert [span.name for span in bench.exporter.get_finished_spans()] == ["GET", "find templates"]


def test_without_a_collector_spans_are_ids_and_nothing_else() -> None:
    tracer = TracerProvider(sampler=IdsOnly(), shutdown_on_exit=False).get_tracer("test")
    span = tracer.start_span("GET", _from_client(), SpanKind.SERVER)
    context = span.get_span_context()
    assert (f"{context.trace_id:032x}", context.trace_flags.sampled, span.is_recording()) == (_CHOSEN, False, False)
    assert not context.trace_state
