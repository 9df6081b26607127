"""What a service says about its own work: structured logs, and traces that lead through all services."""

from libs.common.telemetry.logs import about_environment, log_scope
from libs.common.telemetry.provider import configure_telemetry, flush_traces
from libs.common.telemetry.spans import (
    continued_trace,
    explain,
    fail_span,
    handling,
    mute,
    muted,
    publishing,
    span,
    trace_answer,
    trace_headers,
    tracer,
)

__all__ = [
    "about_environment",
    "configure_telemetry",
    "continued_trace",
    "explain",
    "fail_span",
    "flush_traces",
    "handling",
    "log_scope",
    "mute",
    "muted",
    "publishing",
    "span",
    "trace_answer",
    "trace_headers",
    "tracer",
]
