"""Spans on their way to a collector that is there, away, or does not take them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from structlog.testing import capture_logs

from libs.common.settings import CommonSettings
from libs.common.telemetry import flush_traces
from libs.common.telemetry.provider import exporting_provider
from libs.common.version import VERSION
from tests.support.otlp import Collector, collecting, until

Begin = Callable[[str], TracerProvider]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """A provider as a service has it, quick to send."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")
    made: list[TracerProvider] = []

    def make(url: str) -> TracerProvider:
        settings = CommonSettings(_env_file=None, otel_exporter_otlp_endpoint=url)
        made.append(exporting_provider("envs", settings))
        return made[-1]

    yield make
    for provider in made:
        provider.shutdown()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


async def test_spans_say_which_service_and_which_process_they_are_of(begin: Begin, collector: Collector) -> None:
    begin(collector.url).get_tracer("test").start_span("work").end()
    await until(lambda: len(collector.spans()) == 1)
    resource = collector.spans()[0].resource
    assert resource["service.name"] == "devpocket-envs"
    assert resource["service.version"] == VERSION
    assert resource["service.instance.id"]


async def test_the_standard_variables_are_honoured(
    begin: Begin, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=ours")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    tracer = begin(collector.url).get_tracer("test")
    for _ in range(200):
        tracer.start_span("work").end()
    await until(lambda: len(collector.spans()) > 20)
    assert len(collector.spans()) < 180
    assert collector.headers["x-tenant"] == "ours"
    assert collector.headers["content-encoding"] == "gzip"


async def test_a_collector_that_does_not_take_them_is_told_of_once_and_so_is_its_return(
    begin: Begin, collector: Collector
) -> None:
    tracer = begin(collector.url).get_tracer("test")
    collector.answer = 400
    with capture_logs() as lines:
        for count in range(1, 4):
            tracer.start_span("lost").end()
            await until(lambda count=count: collector.requests >= count)  # type: ignore[misc]
        collector.answer = 200
        tracer.start_span("kept").end()
        await until(lambda: len(collector.spans()) == 1)
        await until(lambda: len(lines) == 2)
    assert [line["log_level"] for line in lines] == ["warning", "info"]


async def test_a_collector_that_hangs_holds_up_no_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()

    class Hanging(SpanExporter):
        def export(self, spans: object) -> None:  # type: ignore[override]
            let_go.wait()

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Hanging()))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    provider.get_tracer("test").start_span("work").end()
    try:
        await flush_traces(within_s=0.05)
    finally:
        let_go.set()
        provider.shutdown()
