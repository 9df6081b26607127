"""Numbers that are costly to find."""

from __future__ import annotations

import asyncio

from libs.common.costly import CostlyNumbers


class Counting:
    """Takes `costs_s` for each count."""

    def __init__(self, costs_s: float) -> None:
        self.now = 0.0
        self.times = 0
        self.there = 5
        self._costs_s = costs_s

    async def count(self, name: str) -> int:
        self.times += 1
        self.now += self._costs_s
        await asyncio.sleep(0)
        return self.there

    def timer(self) -> float:
        return self.now


async def test_what_is_costly_is_found_once_in_a_hundred_times_its_cost() -> None:
    counting = Counting(costs_s=1.0)
    numbers = CostlyNumbers(counting.count, counting.timer)
    assert await asyncio.gather(*(numbers.get("a") for _ in range(10))) == [5] * 10
    assert counting.times == 1
    counting.there = 7
    counting.now += 99.0
    assert await numbers.get("a") == 5
    counting.now += 1.0
    assert await numbers.get("a") == 7
    assert counting.times == 2


async def test_what_is_cheap_is_always_as_it_is_now() -> None:
    counting = Counting(costs_s=0.001)
    numbers = CostlyNumbers(counting.count, counting.timer)
    assert await numbers.get("a") == 5
    counting.there = 6
    assert await numbers.get("a") == 6


async def test_what_this_process_has_changed_counts_until_it_is_found_again() -> None:
    counting = Counting(costs_s=1.0)
    numbers = CostlyNumbers(counting.count, counting.timer)
    numbers.add("a", 100)
    assert await numbers.get("a") == 5
    numbers.add("a", 2)
    assert await numbers.get("a") == 7
    counting.now += 100.0
    assert await numbers.get("a") == 5
