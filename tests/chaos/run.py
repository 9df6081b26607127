"""One run: a stack, its users, what is done to it, and the verdict."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import httpx

from libs.common.messaging.broker import ACK_WAIT_S
from tests.chaos.checks import violations
from tests.chaos.client import GaveUpError
from tests.chaos.cluster import Cluster
from tests.chaos.cluster_faults import Weather
from tests.chaos.drift import Replay, drift, replays
from tests.chaos.evidence import Evidence, gather
from tests.chaos.faults import Menu, Saboteur
from tests.chaos.ground import Ground, watch
from tests.chaos.handler_faults import counted
from tests.chaos.ledger import LOST, STUCK, Ledger, Violation
from tests.chaos.poison import Poisoner
from tests.chaos.rest import until_rest
from tests.chaos.sandboxes import Sandboxes
from tests.chaos.stack import ChaosStack
from tests.chaos.user import User

_PROGRESS_EVERY_S = 5.0
_LEASE_S = 6.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What to run. `fault_every_s` 0 leaves the stack in peace; `handler_errors` is a share of all deliveries.

    `most_faults`: exactly so many, however long the users take and however slow the machine is; 0 is as long as they
    work. `ack_wait_s`: when NATS gives what a process had in hand to somebody else.

    `runtime` is local or kubernetes; `api_errors` is a share of all calls of the latter's API, whose answers come up to
    `api_latency_s` later.
    """

    seed: int
    lifecycles: int = 500
    users: int = 20
    fault_every_s: float = 2.0
    most_faults: int = 0
    handler_errors: float = 0.03
    replicas: int = 2
    with_poison: bool = True
    long_pauses: bool = True
    only: str = ""
    runtime: str = "local"
    api_errors: float = 0.03
    api_latency_s: float = 0.02
    ack_wait_s: float = ACK_WAIT_S


@dataclass(slots=True)
class Outcome:
    """What happened. `seconds` by part of the run."""

    ledger: Ledger
    evidence: Evidence
    violations: list[Violation]
    faults: dict[str, int]
    handler_failures: dict[str, int]
    replays: list[Replay]
    seconds: dict[str, float]


class Run:
    """One run on a stack that was started for it, on its ground."""

    def __init__(self, stack: ChaosStack, ground: Ground, options: Options, tell: Tell) -> None:
        self._stack = stack
        self._ground = ground
        self._options = options
        self._tell = tell
        self._ledger = Ledger()
        self._began = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._replays: list[Replay] = []
        self._faults: Counter[str] = Counter()
        menu = Menu(
            stack.replicas(), lease_s=_LEASE_S, long=options.long_pauses, only=options.only, more=ground.dishes()
        )
        schedule = islice(menu.schedule(options.seed), options.most_faults or None)
        self._saboteur = Saboteur(schedule, stack.processes, stack.note, every_s=options.fault_every_s)

    async def __call__(self) -> Outcome:
        """Everything, in order. The stack is left running."""
        settings = self._stack.stack.environment
        users = [
            User(self._stack.url, f"user{number}-{self._options.seed}", self._chooser(f"user {number}"), self._ledger)
            for number in range(self._options.users)
        ]
        await asyncio.gather(*(user.register() for user in users))
        async with self._ground.weather(self._faults):
            await self._timed("under faults", self._disturbed(users, settings["NATS_URL"]))
        if self._saboteur.errors:
            raise ExceptionGroup("faults that could not be done", self._saboteur.errors)
        await self._timed("coming to rest", self._rest())
        evidence = await gather(settings, self._ground)
        await self._timed("replaying", self._replay())
        found = [*violations(evidence, self._ledger), *drift(self._replays, self._ledger)]
        done, failures = dict(self._saboteur.done + self._faults), counted(self._stack.notes)
        return Outcome(self._ledger, evidence, found, done, failures, self._replays, self._seconds)

    def _chooser(self, whose: str) -> random.Random:
        return random.Random(f"{self._options.seed}:{whose}")

    async def _timed(self, part: str, work: Awaitable[None]) -> None:
        began = time.monotonic()
        await work
        self._seconds[part] = time.monotonic() - began

    async def _disturbed(self, users: list[User], nats_url: str) -> None:
        """The users at work, while the rest of the world is against them."""
        poisoner = Poisoner(nats_url, self._chooser("poison"), self._ledger, lambda: list(self._ledger.lives))
        poisoning = asyncio.create_task(poisoner.run()) if self._options.with_poison else None
        disturbing = [asyncio.create_task(self._progress())]
        disturbing.append(asyncio.create_task(watch(self._ground, self._ledger)))
        sabotage = asyncio.create_task(self._saboteur.run()) if self._options.fault_every_s > 0 else None
        if sabotage is not None:
            disturbing.append(sabotage)
        try:
            await asyncio.gather(*(self._lives(user, number) for number, user in enumerate(users)))
            if sabotage is not None and self._options.most_faults > 0:
                await sabotage
        finally:
            for task in disturbing:
                task.cancel()
            await asyncio.gather(*disturbing, return_exceptions=True)
            poisoner.stop()
            if poisoning is not None:
                await poisoning
            await asyncio.gather(*(user.close() for user in users))

    async def _lives(self, user: User, number: int) -> None:
        """This user's share of the lifecycles; the last environment may stay."""
        mine = range(number, self._options.lifecycles, self._options.users)
        keep = self._chooser(f"keep {number}").random() < 0.5
        for lifecycle in mine:
            try:
                await user.live(lifecycle, keep=keep and lifecycle == mine[-1])
            except GaveUpError as error:
                self._ledger.notice(STUCK, user.name, str(error))
                return

    async def _progress(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_EVERY_S)
            done, total = self._ledger.counts["finished"], self._options.lifecycles
            away = ", ".join(self._stack.not_running()) or "nobody"
            self._tell(
                f"{time.monotonic() - self._began:6.0f} s  {done}/{total} lifecycles, {self._ledger.accepted} requests "
                f"accepted, {self._saboteur.total} faults, {len(self._ledger.poison)} poisoned; away: {away}"
            )

    async def _rest(self) -> None:
        await until_rest(self._stack.stack.environment, self._ground, self._stack.not_running, self._tell)
        async with httpx.AsyncClient(base_url=self._stack.url, timeout=30.0) as http:
            for token in self._ledger.dead_tokens:
                for path in ("/api/v1/auth/me", "/api/v1/environments"):
                    answer = await http.get(path, headers={"Authorization": f"Bearer {token}"})
                    if answer.status_code != 401:
                        what = f"a token that was logged out gets {answer.status_code} from {path}"
                        self._ledger.notice(LOST, token[-12:], what)

    async def _replay(self) -> None:
        self._replays += await replays(self._stack.paths.root)


@contextmanager
def started(data_dir: Path, options: Options) -> Iterator[tuple[ChaosStack, Ground]]:
    """A stack for a run, and what it stands on; both are gone at the end. Raises RuntimeError."""
    ground = _ground(data_dir, options)
    ground.start()
    try:
        settings = {
            "CHAOS_SEED": str(options.seed),
            "CHAOS_HANDLER_ERRORS": str(options.handler_errors),
            "CHAOS_ACK_WAIT": str(options.ack_wait_s),
            "LEASE_SECONDS": str(_LEASE_S),
            **ground.settings,
        }
        stack = ChaosStack(data_dir, replicas=options.replicas, settings=settings)
        try:
            stack.up()
            yield stack, ground
        finally:
            stack.down()
    finally:
        ground.stop()


def _ground(data_dir: Path, options: Options) -> Ground:
    if options.runtime == "local":
        return Sandboxes(data_dir)
    weather = Weather(options.seed, options.api_errors, options.api_latency_s)
    return Cluster(data_dir / "cluster", weather, users=options.users)
