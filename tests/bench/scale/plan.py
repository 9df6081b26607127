"""The arithmetic of a run; pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from libs.common.contracts.identity import PLAN_LIMITS, Plan

_SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
_LEAST_STEP = 100


@dataclass(frozen=True)
class Size:
    """How many environments, whose, and how many at a time. Raises ValueError when no plan allows so many each."""

    environments: int
    users: int
    workers: int

    def __post_init__(self) -> None:
        if min(self.environments, self.users, self.workers) < 1:
            raise ValueError("environments, users and workers are at least 1")
        _ = self.plan

    @property
    def plan(self) -> Plan:
        """The smallest plan that allows what each user gets."""
        each = -(-self.environments // self.users)
        for plan, limits in PLAN_LIMITS.items():
            if limits.environments >= each:
                return plan
        raise ValueError(f"{each} environments each are more than any plan allows: give more --users")

    def milestones(self) -> list[int]:
        """Counts at which everything is read: far enough from each other to say something."""
        counts: list[int] = []
        for share in _SHARES:
            count = round(self.environments * share)
            if count - (counts[-1] if counts else 0) >= min(_LEAST_STEP, self.environments):
                counts.append(count)
        return [*counts[:-1], self.environments] if counts else [self.environments]


def steps(milestones: Sequence[int]) -> Iterator[range]:
    """The numbers between one milestone and the next."""
    begin = 0
    for end in milestones:
        yield range(begin, end)
        begin = end


def percentiles(samples: Sequence[float]) -> tuple[float, float]:
    """p50 and p99; zeros without samples."""
    if len(samples) < 2:
        value = samples[0] if samples else 0.0
        return value, value
    return statistics.median(samples), statistics.quantiles(samples, n=100, method="inclusive")[98]


def growth(first: float, last: float) -> float:
    """How many times as much; 1 where there was nothing."""
    return last / first if first > 0 else 1.0
