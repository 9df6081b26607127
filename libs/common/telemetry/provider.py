"""Tracing of this process: ids always, spans for a collector where OTEL_EXPORTER_OTLP_ENDPOINT names one.

Without a collector nothing is recorded: spans are ids and nothing else. The standard OTEL_* variables tune the rest
(sampler, headers, time-outs, batch sizes); the SDK reads them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from typing import TextIO

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from libs.common.settings import CommonSettings
from libs.common.telemetry.logs import configure_logging
from libs.common.telemetry.sampling import EdgeSampler, IdsOnly
from libs.common.version import VERSION

# What is left at shutdown gets so long; a collector that is away must not hold up a restart.
_FLUSH_S = 2.0
_TRACES_PATH = "/v1/traces"


def configure_telemetry(
    service: str, settings: CommonSettings, *, stream: TextIO | None = None, export: bool = False
) -> None:
    """Set up logs and tracing for this process. `stream` defaults to standard error.

    `export`: send spans to the collector that the settings name, if they do. The first call of a process decides.
    """
    configure_logging(service, stream or sys.stderr, log_format=settings.log_format, log_level=settings.log_level)
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    # Baggage is left out: what a client puts there would travel into events and databases.
    propagate.set_global_textmap(TraceContextTextMapPropagator())
    if not (export and _is_wanted(settings)):
        trace.set_tracer_provider(TracerProvider(sampler=IdsOnly(), shutdown_on_exit=False))
        return
    # Imported late, as the exporter is.
    from libs.common.telemetry.instruments import instrument_clients  # noqa: PLC0415

    provider = exporting_provider(service, settings)
    trace.set_tracer_provider(provider)
    instrument_clients(provider)


async def flush_traces(*, within_s: float = _FLUSH_S) -> None:
    """Send what is left, for so many seconds at most. Other services of the process may go on."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        return
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def flush() -> None:
        provider.force_flush()
        if not loop.is_closed():
            loop.call_soon_threadsafe(done.set)

    # Of our own, because the loop would wait for one of its executor's.
    threading.Thread(target=flush, name="flush-traces", daemon=True).start()
    try:
        async with asyncio.timeout(within_s):
            await done.wait()
    except TimeoutError:
        return


def _is_wanted(settings: CommonSettings) -> bool:
    named = settings.otel_exporter_otlp_endpoint or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return bool(named) and os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "none"


def exporting_provider(service: str, settings: CommonSettings) -> TracerProvider:
    """Its spans go to the collector of the settings."""
    # Imported late: protobuf and requests cost 15 MB that a stack without a collector need not pay.
    from libs.common.telemetry.export import batches_to  # noqa: PLC0415

    resource = Resource.create(
        {
            "service.name": f"devpocket-{service}",
            "service.version": VERSION,
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            "deployment.environment.name": settings.environment.value,
        }
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    # By itself the SDK takes what OTEL_TRACES_SAMPLER says.
    provider.sampler = EdgeSampler(provider.sampler)
    # What the variable for traces alone says is a whole address, and the exporter reads it.
    base = settings.otel_exporter_otlp_endpoint.rstrip("/")
    own = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    provider.add_span_processor(batches_to(None if own else base + _TRACES_PATH))
    return provider
