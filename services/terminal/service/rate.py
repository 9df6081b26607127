"""How fast a user may send messages, over all connections and replicas."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from libs.common.contracts.identity import PLAN_LIMITS
from services.terminal.domain import Caller
from services.terminal.ports import Allowance

BURST_SECONDS = 2.0

# What is drawn at once, in seconds of the rate: a key stroke must not wait for a round trip, and what one replica has
# drawn and not used is missing to the others.
_BATCH_SECONDS = 0.25
# A user who is over the limit does not make a round trip of each message.
_DRY_SECONDS = 0.05
# Users who have left; a client that comes and goes must not leave what was drawn for it behind each time.
_REMEMBERED = 1_000
# How long this process counts by itself before it asks again for the shared count.
_ALONE_SECONDS = 5.0


class Bucket:
    """A token bucket of this process: `per_second` on average, twice that at once."""

    def __init__(self, per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._capacity = per_second * BURST_SECONDS
        self._tokens = self._capacity
        self._clock = clock
        self._counted_at = clock()

    def draw(self, wanted: int) -> int:
        """Up to `wanted` messages."""
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._counted_at) * self._per_second)
        self._counted_at = now
        granted = min(wanted, int(self._tokens))
        self._tokens -= granted
        return granted


class MessageRate:
    """One user's messages in this process, drawn in batches from what all replicas share, ahead of their use."""

    def __init__(
        self, user_id: str, per_second: int, allowance: Allowance, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_second = per_second
        self._user_id = user_id
        self._allowance = allowance
        self._clock = clock
        self._batch = max(1, int(per_second * _BATCH_SECONDS))
        self._tokens = 0
        self._dry_until = float("-inf")
        self._alone_until = float("-inf")
        self._alone: Bucket | None = None
        self._drawing: asyncio.Task[None] | None = None

    async def allows_one(self) -> bool:
        """Count a message; False when it is too many. Waits for the shared count only when a batch was too small."""
        if self._tokens <= self._batch // 2:
            drawing = self._draw_soon()
            if not self._tokens and drawing is not None:
                # Shielded: other connections wait for it as well.
                await asyncio.shield(drawing)
        if not self._tokens:
            return False
        self._tokens -= 1
        return True

    def _draw_soon(self) -> asyncio.Task[None] | None:
        if self._drawing is None and self._clock() >= self._dry_until:
            self._drawing = asyncio.create_task(self._draw())
        return self._drawing

    async def _draw(self) -> None:
        try:
            granted = await self._granted()
            self._tokens += granted
            if granted < self._batch:
                self._dry_until = self._clock() + _DRY_SECONDS
        finally:
            self._drawing = None

    async def _granted(self) -> int:
        if self._clock() >= self._alone_until:
            capacity = int(self.per_second * BURST_SECONDS)
            granted = await self._allowance.draw(self._user_id, self._batch, self.per_second, capacity)
            if granted is not None:
                self._alone = None
                return granted
            self._alone_until = self._clock() + _ALONE_SECONDS
        if self._alone is None:
            self._alone = Bucket(self.per_second, self._clock)
        return self._alone.draw(self._batch)


class MessageRates:
    """The rates of users. `per_second`, if given, counts instead of the plan.

    Those of users who are connected to this process, and of the thousand who left it last.
    """

    def __init__(self, allowance: Allowance, *, per_second: int | None) -> None:
        self._allowance = allowance
        self._per_second = per_second
        self._rates: dict[tuple[str, int], MessageRate] = {}
        self._holders: Counter[tuple[str, int]] = Counter()
        self._left: OrderedDict[tuple[str, int], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rates)

    @contextmanager
    def of(self, caller: Caller) -> Iterator[MessageRate]:
        """This user's, shared by all connections that hold it."""
        per_second = self._per_second or PLAN_LIMITS[caller.plan].messages_per_second
        key = caller.user_id, per_second
        rate = self._rates.get(key) or MessageRate(caller.user_id, per_second, self._allowance)
        self._rates[key] = rate
        self._holders[key] += 1
        self._left.pop(key, None)
        try:
            yield rate
        finally:
            self._release(key)

    def _release(self, key: tuple[str, int]) -> None:
        self._holders[key] -= 1
        if self._holders[key]:
            return
        del self._holders[key]
        self._left[key] = None
        if len(self._left) > _REMEMBERED:
            del self._rates[self._left.popitem(last=False)[0]]
