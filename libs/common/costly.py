"""Numbers that are costly to find."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

# What is found in less time is found anew each time, so that small installations see every change at once.
_CHEAP_S = 0.02
_PER_SECOND_OF_FINDING_S = 100.0


@dataclass(slots=True)
class _Kept:
    number: int = 0
    good_until: float = float("-inf")
    finding: asyncio.Lock = field(default_factory=asyncio.Lock)


class CostlyNumbers:
    """Finds numbers by name, and keeps each for a hundred times as long as it took to find: so however large a
    collection is, counting it takes a hundredth of one connection's time at most."""

    def __init__(self, find: Callable[[str], Awaitable[int]], timer: Callable[[], float] = time.monotonic) -> None:
        """`timer` gives seconds."""
        self._find = find
        self._timer = timer
        self._kept: dict[str, _Kept] = {}

    async def get(self, name: str) -> int:
        """The number, as it was a while ago at most. Raises what `find` raises."""
        kept = self._kept.setdefault(name, _Kept())
        async with kept.finding:
            began = self._timer()
            if began >= kept.good_until:
                kept.number = await self._find(name)
                ended = self._timer()
                took_s = ended - began
                kept.good_until = ended + took_s * _PER_SECOND_OF_FINDING_S if took_s >= _CHEAP_S else float("-inf")
            return kept.number

    def add(self, name: str, number: int) -> None:
        """This process has changed it by so much since it was found."""
        if name in self._kept:
            self._kept[name].number += number
