"""What holds the workspaces of a run: this machine or a cluster, with all that differs behind one protocol."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from tests.chaos.ledger import DOUBLED, Ledger

_LOOK_EVERY_S = 0.5

Begun = Callable[[str], None]
"""Hears in words what an act does, once it is certain that it does."""


class MissedError(Exception):
    """There was nothing that this could befall."""


@dataclass(frozen=True, slots=True)
class Act:
    """Something that befalls the ground. `draw` (0 to 1) picks on what; after `seconds` it is over.

    `do` returns when it is, also when it is cancelled before. Raises MissedError.
    """

    kind: str
    draw: float
    seconds: float
    do: Do = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.kind + (f" for {self.seconds:.1f} s" if self.seconds else "")


Do = Callable[[Act, Begun], Coroutine[None, None, None]]

Dish = tuple[Callable[[random.Random], Act], float]
"""Makes one act of a kind, and how often that kind comes, beside others."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A folder or an object that somebody's workspace leaves behind. `owner`: id of its environment, or of its user.

    `ending`: it is on its way out.
    """

    kind: str
    name: str
    owner: str
    ending: bool = False


class Ground(Protocol):
    """Where the workspaces of one run are. `settings` are for the stack."""

    @property
    def settings(self) -> Mapping[str, str]:
        """What makes a stack use it."""
        ...

    def start(self) -> None:
        """Before the stack. Raises RuntimeError."""
        ...

    def stop(self) -> None:
        """After the stack."""
        ...

    def dishes(self) -> Sequence[Dish]:
        """What can befall it, beside what can befall the processes of a stack."""
        ...

    def weather(self, counts: Counter[str]) -> AbstractAsyncContextManager[object]:
        """What is the matter with it all the time; `counts` knows afterwards how often what was."""
        ...

    def living(self) -> dict[str, dict[str, int]]:
        """By environment: its process-id namespaces, each with one of its pids."""
        ...

    def twice(self) -> dict[str, list[int]]:
        """Environments whose workspace runs more than once at this moment, with a pid of each, and no excuse for it."""
        ...

    async def things(self) -> list[Thing]:
        """All that is left of anybody."""
        ...


async def watch(ground: Ground, ledger: Ledger) -> None:
    """Until cancelled: no workspace may ever run twice."""
    told: set[str] = set()
    while True:
        for environment_id, pids in (await asyncio.to_thread(ground.twice)).items():
            if environment_id not in told:
                told.add(environment_id)
                ledger.notice(DOUBLED, environment_id, f"runs twice at once: pids {pids}")
        await asyncio.sleep(_LOOK_EVERY_S)
