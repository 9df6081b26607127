"""Trouble on purpose: refused calls, lost answers and slowness, drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Fault(StrEnum):
    """What can happen to a call. LOST_ANSWER: it took effect, but the caller hears nothing. HANG: no answer ever."""

    INTERNAL_ERROR = "500"
    UNAVAILABLE = "503"
    TOO_MANY_REQUESTS = "429"
    RESET = "reset"
    LOST_ANSWER = "lost_answer"
    HANG = "hang"


QUICK = tuple(fault for fault in Fault if fault is not Fault.HANG)


@dataclass(slots=True)
class FaultPlan:
    """At `rate`, one of `kinds` befalls a call that `matches` (verb, resource, subresource) lets through.

    Hanging is for those who name it: such a call takes as long as its caller waits. `latency` delays every answer up to
    so many seconds; `watch_seconds` ends every watch after about that long; `gone_rate` of resumed watches get 410.
    """

    seed: int = 0
    rate: float = 0.0
    kinds: Sequence[Fault] = QUICK
    latency: float = 0.0
    watch_seconds: float | None = None
    gone_rate: float = 0.0
    matches: Callable[[str, str, str], bool] = lambda verb, resource, subresource: True
    injected: dict[Fault, int] = field(default_factory=dict)
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def draw(self, verb: str, resource: str, subresource: str) -> Fault | None:
        """The trouble for this call, or None."""
        if not self.matches(verb, resource, subresource) or self._random.random() >= self.rate:
            return None
        fault = self._random.choice(list(self.kinds))
        self.injected[fault] = self.injected.get(fault, 0) + 1
        return fault

    def delay(self) -> float:
        """Seconds to wait before the answer."""
        return self._random.uniform(0, self.latency) if self.latency else 0.0

    def watch_life(self) -> float | None:
        """Seconds until the server ends a watch by itself."""
        return None if self.watch_seconds is None else self._random.uniform(0.5, 1.5) * self.watch_seconds

    def watch_is_gone(self) -> bool:
        """Whether a watch that starts from a version is told 410."""
        return self._random.random() < self.gone_rate
