"""The registry of one application, and its text for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, GCCollector, Info, Metric, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics import disable_created_metrics

from libs.common.metrics.families import Asked, Family, Read, Values
from libs.common.version import VERSION

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# Each counter and histogram would be two series: Prometheus sees a restart by itself.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """What one service tells Prometheus. Counters and histograms are made on `registry` by whoever counts."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.registry = CollectorRegistry()
        self._asked: list[Asked] = []
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = Info("devpocket_build", "The service and its version.", registry=self.registry)
        build.info({"service": service, "version": VERSION})

    def read(self, families: Sequence[Family], read: Callable[[], Values]) -> None:
        """Values of this process, read at every scrape."""
        self.registry.register(Read(families, read))

    def ask(
        self,
        families: Sequence[Family],
        ask: Callable[[], Awaitable[Values]],
        *,
        keep_s: float = 5.0,
        limit_s: float = 2.0,
    ) -> None:
        """Values that others have to be asked for; see Asked."""
        asked = Asked(families, ask, keep_s=keep_s, limit_s=limit_s)
        self._asked.append(asked)
        self.registry.register(asked)

    def families(self) -> Iterable[Metric]:
        """Every family there may be, whether or not it has values now."""
        yield from self.registry.collect()
        for asked in self._asked:
            yield from asked.describe()

    async def exposition(self) -> bytes:
        """The text format 0.0.4, within a few seconds whatever is away."""
        await asyncio.gather(*(asked.refresh() for asked in self._asked))
        return generate_latest(self.registry)
