"""Real histories of one environment, made by the production code itself, and the ways in which they may arrive.

`Life` is the world as it should be: users' commands go through the envs service, its wishes reach the orchestrator, its
reports come back, each event once and in order. `Delivery` brings the same reports to another envs store late, twice,
and in another order, while the same users ask for the same things.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from hypothesis import strategies as st

from libs.common.contracts.events import (
    EnvironmentStatusChanged,
    EnvironmentWish,
    Event,
    EventData,
    RuntimeReport,
)
from libs.common.ids import new_id
from services.envs.entities import Command, Environment
from services.envs.errors import EnvironmentNotFoundError, TransitionForbiddenError
from services.envs.ports import EnvironmentStore
from services.envs.service.accounts import AccountService
from services.envs.service.environments import Changes, EnvironmentService, NewEnvironment
from services.envs.service.regions import RegionService
from services.envs.service.reports import ReportService
from services.envs.service.templates import TemplateService
from services.orchestrator.domain.model import Limits
from services.orchestrator.service.wishes import Wishes
from tests.fakes.envs import FakeAccounts, FakeClusters, FakeEnvironments, FakeTemplates
from tests.fakes.runtime import OverloadedRuntime
from tests.unit.envs.makers import a_principal
from tests.unit.orchestrator.memory import START, FakeClock, MemoryStore
from tests.unit.orchestrator.service.conftest import SEALER, a_reconciler

# Short enough that a story of a few steps has crash loops and deadlines in it.
_LIMITS = Limits(provision_s=20, stop_s=20, delete_s=20, losses=1)
_INCIDENTS = ("work", "work", "work", "later", "crash", "vanish", "rename", *Command)

Plan = tuple[list[str], int]
plans: st.SearchStrategy[Plan] = st.tuples(st.lists(st.sampled_from(_INCIDENTS), max_size=16), st.integers(0, 6))
"""What happens, and how many calls of the runtime fail."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A user's request that had an effect."""

    incident: str
    name: str


@dataclass(frozen=True, slots=True)
class Told:
    """An event and its place in the stream."""

    data: EventData
    sequence: int


class Desk:
    """The envs service's use cases on some store."""

    def __init__(self, store: EnvironmentStore, clock: FakeClock) -> None:
        self.store = store
        self.user = a_principal(user_id=new_id())
        templates = TemplateService(FakeTemplates(), store, image_prefix="images", clock=clock)
        self._seed = templates.seed
        self.environments = EnvironmentService(
            store,
            templates,
            AccountService(FakeAccounts()),
            RegionService(FakeClusters()),
            SEALER,
            verified_only=False,
            clock=clock,
        )
        self.reports = ReportService(store, clock)

    async def create(self) -> Environment:
        """The environment that it is all about."""
        await self._seed()
        return await self.environments.create(self.user, NewEnvironment("v0", "python", startup_command="make"))

    async def ask(self, environment_id: str, asked: Asked) -> bool:
        """Whether the request had an effect."""
        before = await self.store.get(environment_id)
        try:
            if asked.incident == "rename":
                await self.environments.update(self.user, environment_id, Changes(name=asked.name))
            else:
                await self.environments.command(self.user, environment_id, Command(asked.incident))
        except (TransitionForbiddenError, EnvironmentNotFoundError):
            return False
        after = await self.store.get(environment_id)
        return _wanted(before) != _wanted(after)


class Life:
    """Envs and orchestrator in memory; `timeline` is what users asked and what was told, in order."""

    first: Environment

    def __init__(self, failures: int) -> None:
        self.clock = FakeClock()
        self.envs = FakeEnvironments()
        self.desk = Desk(self.envs, self.clock)
        self.timeline: list[Asked | Told] = []
        self._memory = MemoryStore()
        self._runtime = OverloadedRuntime(failures)
        self._wishes = Wishes(self._memory, lambda _: None, self.clock)
        self._reconciler = a_reconciler(self._memory, self._runtime, self.clock, limits=_LIMITS)
        self._relayed = 0
        self._reported = 0
        self._sequence = 0

    @classmethod
    async def lived(cls, plan: Plan) -> Life:
        """A whole life; at the end the orchestrator has had time to finish what it can."""
        incidents, failures = plan
        life = cls(failures)
        life.first = await life.desk.create()
        await life._relay()
        for number, incident in enumerate([*incidents, "work", "later", "later", "later"]):
            await life._live_through(incident, f"v{number + 1}")
        return life

    @property
    def last(self) -> Environment:
        """How it ended."""
        return self.envs.found[self.first.id]

    @property
    def told(self) -> list[Told]:
        """All events in the order of the stream."""
        return [entry for entry in self.timeline if isinstance(entry, Told)]

    @property
    def wishes(self) -> list[EnvironmentWish]:
        """What envs has said to the orchestrator."""
        return [entry.data for entry in self.told if isinstance(entry.data, EnvironmentWish)]

    async def _live_through(self, incident: str, name: str) -> None:
        self.clock.forward(40 if incident == "later" else 1)
        match incident:
            case "work" | "later":
                await self._reconciler.reconcile(self.first.id, only_if_due=True)
            case "crash" | "vanish":
                if self._runtime.runs(self.first.id):
                    getattr(self._runtime, incident)(self.first.id)
                await self._reconciler.reconcile(self.first.id)
            case _:
                asked = Asked(incident, name)
                if await self.desk.ask(self.first.id, asked):
                    self.timeline.append(asked)
        await self._relay()

    async def _relay(self) -> None:
        """Number what was said and deliver it, until nothing is left."""
        while self._relayed < len(self.envs.events) or self._reported < len(self._memory.reports):
            for event in self.envs.events[self._relayed :]:
                self._relayed += 1
                data = self._number(event.payload())
                if isinstance(data, EnvironmentWish):
                    await self._wishes.accept(data)
            for about, report in self._memory.reports[self._reported :]:
                self._reported += 1
                data = report.kind(
                    environment_id=about.id,
                    user_id=about.user_id,
                    generation=about.generation,
                    runtime="fake",
                    reason=report.reason,
                    message=report.message,
                )
                self._number(data)
                await self.desk.reports.apply(data, self._sequence)

    def _number(self, data: EventData) -> EventData:
        self._sequence += 1
        self.timeline.append(Told(data, self._sequence))
        return data


class Delivery:
    """The same life on another store, where reports arrive late, repeated and in any order."""

    def __init__(self, life: Life, store: EnvironmentStore, random: Random) -> None:
        self._life = life
        self._random = random
        self._desk = Desk(store, life.clock)
        self._desk.user = life.desk.user
        self._held: list[Told] = []
        self._heard: list[Told] = []

    async def run(self) -> Environment:
        """The environment after everything has arrived."""
        first = self._life.first
        await self._desk.store.insert(first, [])
        for entry in self._life.timeline:
            if isinstance(entry, Asked):
                await self._ask_until_it_works(entry)
            elif isinstance(entry.data, RuntimeReport):
                self._held.append(entry)
                await self._deliver_some()
        await self._deliver_rest()
        last = await self._desk.store.get(first.id)
        assert last is not None
        return last

    async def _deliver_some(self) -> None:
        while self._held and self._random.random() < 0.5:
            await self._deliver(self._held.pop(self._random.randrange(len(self._held))))
        if self._heard and self._random.random() < 0.3:
            await self._deliver(self._random.choice(self._heard))

    async def _deliver_rest(self) -> None:
        rest = [*self._held, *self._held[::2], *self._random.sample(self._heard, len(self._heard) // 2)]
        self._random.shuffle(rest)
        for told in rest:
            await self._deliver(told)

    async def _deliver(self, told: Told) -> None:
        assert isinstance(told.data, RuntimeReport)
        before = await self._desk.store.get(self._life.first.id)
        await self._desk.reports.apply(told.data, told.sequence)
        after = await self._desk.store.get(self._life.first.id)
        assert before is not None
        assert after is not None
        if told in self._heard:
            assert after == before, "a repeated report changes nothing"
        elif told.data.generation != before.generation:
            installed = replace(before, installation_completed=True)
            assert outcome(after) in (outcome(before), outcome(installed)), "a report about another wish counts"
        self._heard.append(told)

    async def _ask_until_it_works(self, asked: Asked) -> None:
        """A user whose screen lags behind asks again when the next report has come."""
        while not await self._desk.ask(self._life.first.id, asked):
            assert self._held, f"{asked} has no effect, and nothing is on its way that could change that"
            await self._deliver(self._held.pop(self._random.randrange(len(self._held))))


def outcome(environment: Environment) -> dict[str, Any]:
    """What must not depend on the order of delivery. How often it was written may."""
    settled = replace(environment, version=0, updated_at=START, deleted_at=environment.deleted_at and START)
    return {name: getattr(settled, name) for name in Environment.__slots__}


def announcements(events: list[Event]) -> list[EnvironmentStatusChanged]:
    """What users were told, in order."""
    payloads = [event.payload() for event in events]
    return [data for data in payloads if isinstance(data, EnvironmentStatusChanged)]


def check_announcements(told: list[EnvironmentStatusChanged], life: Life) -> None:
    """Each begins where the one before ended, none is told twice, and there are no more than there were reasons."""
    status, reason, version = life.first.status, life.first.status_reason, life.first.version
    for one in told:
        assert one.previous is status
        assert (one.status, one.status_reason) != (status, reason)
        assert one.version > version
        status, reason, version = one.status, one.status_reason, one.version
    asked = sum(isinstance(entry, Asked) and entry.incident != "rename" for entry in life.timeline)
    reports = sum(isinstance(entry.data, RuntimeReport) for entry in life.told)
    assert len(told) <= asked + reports


def _wanted(environment: Environment | None) -> tuple[int, str] | None:
    return None if environment is None else (environment.generation, environment.name)
