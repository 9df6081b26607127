"""What is done to the stack, and when: an endless list that follows from a seed, and who does it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from libs.cli.stack.processes import ProcessIdentity, send
from libs.cli.stack.state import ProcessRecord
from tests.chaos.ground import Act, Dish, MissedError
from tests.chaos.stack import INFRASTRUCTURE_NAMES

KILL, TERMINATE, PAUSE = signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP
_SHORT_PAUSES_S = (1.0, 8.0)
# Beyond the time after which NATS gives an unacknowledged message to somebody else (30 s).
_LONG_PAUSES_S = (32.0, 36.0)
# So often what finds nothing to befall looks again.
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Fault:
    """A signal to the process `target`; after SIGSTOP it goes on when `pause_s` seconds are over."""

    target: str
    signal: signal.Signals
    pause_s: float = 0.0

    @property
    def kind(self) -> str:
        """For counting: `kill -9 envs`, `pause nats`."""
        verb = {KILL: "kill -9", TERMINATE: "terminate", PAUSE: "pause"}[self.signal]
        return f"{verb} {self.target.rpartition('-')[0] or self.target}"

    def __str__(self) -> str:
        return f"{self.signal.name} {self.target}" + (f" for {self.pause_s:.1f} s" if self.pause_s else "")


@dataclass(frozen=True, slots=True)
class Menu:
    """What can happen. `lease_s` is the orchestrator's: some of its pauses last longer. `long`: also very long ones.

    `only`: a regular expression for the kinds that are wanted, for those who look for a cause. `more`: what can befall
    what holds the workspaces.
    """

    services: Sequence[str]
    infrastructure: Sequence[str] = INFRASTRUCTURE_NAMES
    lease_s: float = 6.0
    long: bool = True
    only: str = ""
    more: Sequence[Dish] = ()

    def schedule(self, seed: int) -> Iterator[Fault | Act]:
        """Faults without end, always the same for the same seed."""
        choose = random.Random(f"{seed}:faults")
        makers, weights = zip(*self._dishes(), strict=True)
        while True:
            (make,) = choose.choices(makers, weights)
            fault = make(choose)
            if re.search(self.only, fault.kind):
                yield fault

    def _dishes(self) -> list[tuple[Callable[[random.Random], Fault | Act], float]]:
        services, infrastructure = list(self.services), list(self.infrastructure)
        orchestrators = [name for name in services if name.startswith("orchestrator")]
        past_lease = (self.lease_s + 1.0, self.lease_s + 4.0)
        dishes: list[tuple[Callable[[random.Random], Fault | Act], float]] = [
            (lambda choose: Fault(choose.choice(services), KILL), 8),
            (lambda choose: Fault(choose.choice(services), TERMINATE), 2),
            (lambda choose: Fault(choose.choice(services), PAUSE, choose.uniform(*_SHORT_PAUSES_S)), 5),
            (lambda choose: Fault(choose.choice(infrastructure), KILL), 2),
            (lambda choose: Fault(choose.choice(infrastructure), TERMINATE), 2),
            (lambda choose: Fault(choose.choice(infrastructure), PAUSE, choose.uniform(*_SHORT_PAUSES_S)), 2),
        ]
        if orchestrators:
            dishes.append((lambda choose: Fault(choose.choice(orchestrators), PAUSE, choose.uniform(*past_lease)), 1))
        if self.long:
            dishes.append((lambda choose: Fault(choose.choice(services), PAUSE, choose.uniform(*_LONG_PAUSES_S)), 0.5))
        return [*dishes, *self.more]


class Saboteur:
    """Does one fault every `every_s` seconds until it is stopped or the schedule ends. `processes` tells who runs where
    right now.

    `note` hears of each fault as it happens. `errors`: what went wrong in doing it, which is a bug of ours.
    """

    def __init__(
        self,
        schedule: Iterator[Fault | Act],
        processes: Callable[[], dict[str, ProcessRecord]],
        note: Callable[[str], None],
        *,
        every_s: float,
    ) -> None:
        self.done: Counter[str] = Counter()
        self.errors: list[Exception] = []
        self._schedule = schedule
        self._processes = processes
        self._note = note
        self._every_s = every_s
        self._paused: dict[int, ProcessIdentity] = {}
        self._going_on: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled, when what goes on is over at once; or until the schedule ends and all of it is over."""
        try:
            for fault in self._schedule:
                await asyncio.sleep(self._every_s)
                if isinstance(fault, Act):
                    self._in_background(self._befall(fault))
                else:
                    self._do(fault)
            await asyncio.gather(*self._going_on)
        finally:
            for task in self._going_on:
                task.cancel()
            await asyncio.gather(*self._going_on, return_exceptions=True)
            for identity in self._paused.values():
                send(identity, signal.SIGCONT)

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._going_on.add(task)
        task.add_done_callback(self._going_on.discard)

    async def _befall(self, act: Act) -> None:
        try:
            for _ in range(_TRIES):
                with contextlib.suppress(MissedError):
                    await act.do(act, partial(self._begun, act))
                    return
                # On a busy machine there may be no pod yet.
                await asyncio.sleep(self._every_s)
            self.done["missed"] += 1
        except Exception as error:
            self._note(f"{act} went wrong: {error!r}")
            self.errors.append(error)

    def _begun(self, act: Act, what: str) -> None:
        self.done[act.kind] += 1
        self._note(f"{act} {what}".strip())

    def _do(self, fault: Fault) -> None:
        record = self._processes().get(fault.target)
        # One that is being started again is away already.
        if record is None or record.identity is None or not send(record.identity, fault.signal):
            self.done["missed"] += 1
            return
        self.done[fault.kind] += 1
        self._note(str(fault))
        if fault.signal is PAUSE:
            self._paused[record.identity.pid] = record.identity
            self._in_background(self._resume(record.identity, fault.pause_s))

    async def _resume(self, identity: ProcessIdentity, after_s: float) -> None:
        await asyncio.sleep(after_s)
        with contextlib.suppress(KeyError):
            del self._paused[identity.pid]
        send(identity, signal.SIGCONT)

    @property
    def total(self) -> int:
        """How many faults there were."""
        return sum(number for kind, number in self.done.items() if kind != "missed")
