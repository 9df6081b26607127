"""Which spans are kept.

What the operator says (OTEL_TRACES_SAMPLER) decides at the start of a trace, and everything below follows. A client may
name the trace that its request belongs to, and no more: whether it is kept is decided here, by a number that the client
does not know, so that nobody outside can have everything recorded, or hide.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.util.types import Attributes

# Asked all the time, by machines.
_QUIET_PATHS = ("/health", "/metrics")
# Queries may carry tickets, tokens and what users type; the path says enough.
_SECRET = frozenset({"url.query"})


class IdsOnly(Sampler):
    """Nothing is recorded; spans have ids, for logs and answers. What clients say beside an id goes no further."""

    def should_sample(  # noqa: PLR0917 - the SDK's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """See Sampler."""
        return SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        """See Sampler."""
        return "IdsOnly"


class EdgeSampler(Sampler):
    """`configured` is the operator's choice. Health checks, and calls to servers outside of any story, are dropped."""

    def __init__(self, configured: Sampler) -> None:
        self._configured = ParentBased(root=configured)
        self._ids = RandomIdGenerator()

    def should_sample(  # noqa: PLR0917 - the SDK's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """See Sampler."""
        parent = get_current_span(parent_context).get_span_context()
        if kind is SpanKind.CLIENT and not parent.is_valid:
            return SamplingResult(Decision.DROP)
        if kind is SpanKind.SERVER and (parent.is_remote or not parent.is_valid):
            attributes = {key: value for key, value in (attributes or {}).items() if key not in _SECRET}
            if str(attributes.get("url.path", "")).startswith(_QUIET_PATHS):
                return SamplingResult(Decision.DROP)
            lot = self._ids.generate_trace_id()
            return self._configured.should_sample(Context(), lot, name, kind, attributes, links)
        return self._configured.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """See Sampler."""
        return "EdgeSampler"
