"""The token bucket, on a clock of our own."""

from __future__ import annotations

from services.terminal.service.rate import MessageRate


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_of_two_seconds_then_the_average() -> None:
    clock = Clock()
    rate = MessageRate(10, clock)
    assert sum(rate.allows_one() for _ in range(100)) == 20
    clock.now += 1
    assert sum(rate.allows_one() for _ in range(100)) == 10
    clock.now += 1000
    assert sum(rate.allows_one() for _ in range(100)) == 20
