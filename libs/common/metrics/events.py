"""What becomes of events, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import Counter, Histogram

from libs.common.messaging.delivery import Outcome
from libs.common.messaging.outbox import Publisher
from libs.common.metrics.registry import Metrics

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0)


class EventMetrics:
    """Counts for a service; `handled` is a delivery policy's observer."""

    def __init__(self, metrics: Metrics) -> None:
        self._handled = Counter(
            "devpocket_events_handled_total",
            "Deliveries of events to a consumer, by outcome: done, retried, dead_lettered.",
            ("consumer", "outcome"),
            registry=metrics.registry,
        )
        self._durations = Histogram(
            "devpocket_event_handling_duration_seconds",
            "Seconds that handling one delivery took, waiting for an absent database included.",
            ("consumer",),
            buckets=_BUCKETS_S,
            registry=metrics.registry,
        )
        self._published = Counter(
            "devpocket_events_published_total",
            "Events that the stream has taken from the outbox.",
            registry=metrics.registry,
        )

    def expect(self, consumers: Sequence[str]) -> None:
        """Begin at zero, so that the first outcome of a kind is seen as a change."""
        for consumer in consumers:
            self._durations.labels(consumer)
            for outcome in Outcome:
                self._handled.labels(consumer, outcome.value)

    def handled(self, consumer: str, outcome: Outcome, seconds: float) -> None:
        """One delivery has had its outcome."""
        self._handled.labels(consumer, outcome.value).inc()
        self._durations.labels(consumer).observe(seconds)

    def counting(self, publisher: Publisher) -> Publisher:
        """The publisher, with what it has published counted."""
        return _CountedPublisher(publisher, self._published)


class _CountedPublisher:
    """Implements Publisher."""

    def __init__(self, publisher: Publisher, published: Counter) -> None:
        self._publisher = publisher
        self._published = published

    @property
    def connected(self) -> bool:
        """See Publisher."""
        return self._publisher.connected

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """See Publisher."""
        await self._publisher.publish(subject, payload, headers)
        self._published.inc()
