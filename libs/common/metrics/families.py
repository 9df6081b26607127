"""Metrics whose values are not counted along the way but looked up when somebody asks."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

# A look is worth at most this share of the time: what takes long to count is counted less often.
_LOOKS_AT_MOST = 1 / 20
_OTHER = "Other"
_REASON = re.compile(r"[A-Z][A-Za-z0-9]{2,49}")

log = structlog.get_logger(__name__)

Samples = Mapping[tuple[str, ...], float]
"""A value for each combination of label values, in the order of the family's labels."""
Values = Mapping[str, Samples]
"""The samples of each family, by its name."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric as it is exposed; a counter's name ends in `_total`."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter"] = "gauge"

    def filled(self, samples: Samples) -> Metric:
        """With values."""
        make = GaugeMetricFamily if self.kind == "gauge" else CounterMetricFamily
        family = make(self.name, self.help, labels=self.labels)
        for labels, value in samples.items():
            family.add_metric(labels, value)
        return family


class Read(Collector):
    """Reads plain values of this process when it is scraped: what is counted costs those who count nothing."""

    def __init__(self, families: Sequence[Family], read: Callable[[], Values]) -> None:
        self._families = families
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """The families without values."""
        return [family.filled({}) for family in self._families]

    def collect(self) -> Iterable[Metric]:
        """The families as they are now."""
        values = self._read()
        return [family.filled(values.get(family.name, {})) for family in self._families]


class Asked(Collector):
    """Asks another part, a server mostly, and remembers the answer for a while.

    An answer is kept for `keep_s` seconds, and for as long as keeps the looks below a twentieth of the time. When there
    is none within `limit_s` the families are left out: a value that nobody knows is not shown as the last one known.
    """

    def __init__(
        self,
        families: Sequence[Family],
        ask: Callable[[], Awaitable[Values]],
        *,
        keep_s: float = 5.0,
        limit_s: float = 2.0,
    ) -> None:
        self._families = families
        self._ask = ask
        self._keep_s = keep_s
        self._limit_s = limit_s
        self._known: Values | None = None
        self._fresh_until = float("-inf")
        self._lock = asyncio.Lock()

    async def refresh(self) -> None:
        """Ask again if the answer is old. Raises nothing, and returns within `limit_s`."""
        async with self._lock:
            started = time.monotonic()
            if started < self._fresh_until:
                return
            try:
                async with asyncio.timeout(self._limit_s):
                    self._known = await self._ask()
            except Exception as error:
                self._known = None
                log.debug(
                    "metrics are left out", families=[family.name for family in self._families], error=repr(error)
                )
            now = time.monotonic()
            self._fresh_until = now + max(self._keep_s, (now - started) / _LOOKS_AT_MOST)

    def describe(self) -> Iterable[Metric]:
        """The families without values."""
        return [family.filled({}) for family in self._families]

    def collect(self) -> Iterable[Metric]:
        """The families as they were answered; none without an answer."""
        if self._known is None:
            return []
        return [family.filled(self._known.get(family.name, {})) for family in self._families]


class Reasons:
    """Keeps a label of CamelCase reasons to a bounded number of values: the rest is `Other`."""

    def __init__(self, known: Iterable[str] = (), *, limit: int = 60) -> None:
        self._seen = set(known)
        self._limit = limit

    def label(self, reason: str | None) -> str:
        """The value for this reason."""
        if reason is None or not _REASON.fullmatch(reason):
            return _OTHER
        if reason not in self._seen:
            if len(self._seen) >= self._limit:
                return _OTHER
            self._seen.add(reason)
        return reason

    def tally(self, counts: Mapping[str | None, float]) -> Samples:
        """Counts by label."""
        tally: Tally[tuple[str, ...]] = Tally()
        for reason, count in counts.items():
            tally[(self.label(reason),)] += int(count)
        return tally
