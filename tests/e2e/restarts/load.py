"""Owners and typists at once, and what they have seen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from tests.e2e.restarts.ledger import Ledger
from tests.e2e.restarts.owner import Owner
from tests.e2e.restarts.typist import Typist
from tests.support.app import eventually
from tests.support.phone import signed_in

_WARM_S = 120.0


class Load:
    """`owners` and `typists`: how many."""

    def __init__(self, url: str, *, owners: int, typists: int) -> None:
        self.ledger = Ledger()
        self.owners: list[Owner] = []
        self.typists: list[Typist] = []
        self._url = url
        self._counts = owners, typists

    async def during(self, work: Callable[[], Awaitable[None]]) -> None:
        """Go on for as long as `work` does. Raises what the first client has met that should not be."""
        owners, typists = self._counts
        stop = asyncio.Event()
        async with AsyncExitStack() as stack:
            for _ in range(owners):
                self.owners.append(Owner(await stack.enter_async_context(signed_in(self._url)), self.ledger))
            for _ in range(typists):
                phone = await stack.enter_async_context(signed_in(self._url))
                self.typists.append(Typist(phone, await phone.create(template="ubuntu")))
            async with asyncio.TaskGroup() as group:
                for run in (*(owner.run for owner in self.owners), *(typist.run for typist in self.typists)):
                    group.create_task(run(stop))
                # Everybody is at it.
                await eventually(self._are_all_at_it, _WARM_S)
                await work()
                stop.set()

    async def _are_all_at_it(self) -> bool:
        return all(owner.rounds for owner in self.owners) and all(typist.typed > 5 for typist in self.typists)

    def __str__(self) -> str:
        rounds = sum(owner.rounds for owner in self.owners)
        waits = max((owner.longest_wait_s for owner in self.owners), default=0.0)
        typed = sum(typist.typed for typist in self.typists)
        gaps = max((typist.longest_gap_s for typist in self.typists), default=0.0)
        endings = [dict(typist.endings) for typist in self.typists]
        return (
            f"{self.ledger}; {rounds} environments, longest wait for a status {waits:.2f} s; {typed} messages typed, "
            f"longest gap {gaps:.2f} s, connections ended by {endings}"
        )
