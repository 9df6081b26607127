"""How quick the machinery of the fake is. A real cluster's minutes are fractions of a second here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """Seconds. `step` is what a controller needs to see a change; the others are waits between tries."""

    step: float = 0.01
    retry: float = 0.2
    crash_backoff: float = 0.3
    quota_lag: float = 0.05
    service_account: float = 0.02
    bookmark: float = 5.0
