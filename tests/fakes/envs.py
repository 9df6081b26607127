"""Stores of the envs service in memory, with the guarantees of the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from libs.common.contracts.clusters import ClusterState, ClusterStatus
from libs.common.contracts.environments import EnvironmentStatus
from libs.common.contracts.events import Event
from libs.common.contracts.telemetry import UsageSample
from libs.common.contracts.users import UserDeleted, UserState
from services.envs.allowance import Occupant
from services.envs.catalog import Template
from services.envs.entities import Change, Environment, Usage
from services.envs.plans import Account, Place
from services.envs.ports import TakenError


class FakeEnvironments:
    """EnvironmentStore. `conflicts` makes that many saves find that somebody else was faster."""

    def __init__(self) -> None:
        self.found: dict[str, Environment] = {}
        self.events: list[Event] = []
        self.conflicts = 0
        self.thefts: list[Environment] = []

    async def places(self, user_id: str) -> list[Place]:
        """See EnvironmentStore."""
        return [Place(e.slot, e.name) for e in self.found.values() if e.user_id == user_id and e.slot is not None]

    async def occupants(self, user_id: str) -> list[Occupant]:
        """See EnvironmentStore."""
        mine = [e for e in self.found.values() if e.user_id == user_id and e.is_live]
        return [Occupant(e.id, e.desired, e.last_accessed or e.created_at) for e in mine]

    async def insert(self, environment: Environment, events: Sequence[Event]) -> None:
        """See EnvironmentStore. `thefts` are inserted just before, as another replica would."""
        if self.thefts:
            thief = self.thefts.pop(0)
            self.found[thief.id] = thief
        self._refuse_taken(environment)
        if environment.id in self.found:
            raise TakenError
        self.found[environment.id] = environment
        self.events += events

    async def save(self, change: Change, events: Sequence[Event]) -> bool:
        """See EnvironmentStore."""
        if self.conflicts:
            self.conflicts -= 1
            return False
        if self.found[change.before.id].version != change.before.version:
            return False
        self._refuse_taken(change.after)
        self.found[change.after.id] = change.after
        self.events += events
        return True

    async def get(self, environment_id: str) -> Environment | None:
        """See EnvironmentStore."""
        return self.found.get(environment_id)

    async def page(
        self, user_id: str, *, status: EnvironmentStatus | None, limit: int, before: str | None
    ) -> list[Environment]:
        """See EnvironmentStore."""
        mine = [e for e in self.found.values() if e.user_id == user_id and e.is_live and status in {None, e.status}]
        newest_first = sorted(mine, key=lambda e: e.id, reverse=True)
        return [e for e in newest_first if before is None or e.id < before][:limit]

    async def set_usage(self, environment_id: str, usage: Usage) -> bool:
        """See EnvironmentStore."""
        environment = self.found.get(environment_id)
        if environment is None or (environment.usage and environment.usage.sampled_at >= usage.sampled_at):
            return False
        self.found[environment_id] = replace(environment, usage=usage)
        return True

    async def touch(self, environment_id: str, at: datetime) -> None:
        """See EnvironmentStore."""
        environment = self.found.get(environment_id)
        if environment is not None:
            latest = max(at, environment.last_accessed or at)
            self.found[environment_id] = replace(environment, last_accessed=latest)

    async def count_by_template(self, name: str) -> int:
        """See EnvironmentStore."""
        return sum(e.template == name and e.is_live for e in self.found.values())

    def _refuse_taken(self, environment: Environment) -> None:
        for other in self.found.values():
            same_owner = other.user_id == environment.user_id and other.id != environment.id
            if same_owner and other.is_live and (other.slot == environment.slot or other.name == environment.name):
                raise TakenError


class FakeAccounts:
    """AccountStore."""

    def __init__(self) -> None:
        self.found: dict[str, Account] = {}

    async def take(self, state: UserState) -> None:
        """Keep what auth says, as the real read model does."""
        account = Account(
            user_id=state.user_id,
            plan=state.plan,
            is_active=state.is_active,
            is_verified=state.is_verified,
            is_deleted=isinstance(state, UserDeleted),
            version=state.version,
        )
        known = self.found.get(account.user_id)
        if known is None or known.version < account.version:
            self.found[account.user_id] = account

    async def get(self, user_id: str) -> Account | None:
        """See AccountStore."""
        return self.found.get(user_id)


class FakeDepartures:
    """DepartureStore."""

    def __init__(self, accounts: FakeAccounts) -> None:
        self.begun: dict[str, int] = {}
        self.told: dict[str, int] = {}
        self.events: list[Event] = []
        self._accounts = accounts

    async def begin(self, user_id: str, environments: int) -> None:
        """See DepartureStore."""
        if self._accounts.found[user_id].is_deleted:
            self.begun.setdefault(user_id, environments)

    async def untold(self, user_id: str) -> int | None:
        """See DepartureStore."""
        return self.begun.get(user_id) if user_id not in self.told else None

    async def tell(self, user_id: str, environments: int, event: Event) -> None:
        """See DepartureStore."""
        if self._accounts.found[user_id].is_deleted and user_id not in self.told:
            self.told[user_id] = environments
            self.events.append(event)


class FakeClusters:
    """ClusterStore."""

    def __init__(self) -> None:
        self.known: dict[str, ClusterState] = {}

    async def keep(self, state: ClusterState) -> None:
        known = self.known.get(state.cluster_id)
        if known is None or known.version < state.version:
            self.known[state.cluster_id] = state

    async def regions(self) -> set[str]:
        return {state.region for state in self.known.values() if state.status is not ClusterStatus.REMOVED}


class FakeTemplates:
    """TemplateStore."""

    def __init__(self) -> None:
        self.found: dict[str, Template] = {}

    async def all(self) -> list[Template]:
        """See TemplateStore."""
        return [self.found[name] for name in sorted(self.found)]

    async def get(self, name: str) -> Template | None:
        """See TemplateStore."""
        return self.found.get(name)

    async def insert(self, template: Template) -> bool:
        """See TemplateStore."""
        return self.found.setdefault(template.name, template) is template

    async def replace(self, template: Template) -> bool:
        """See TemplateStore."""
        if template.name not in self.found:
            return False
        self.found[template.name] = template
        return True


class FakeHistory:
    """UsageHistory."""

    def __init__(self) -> None:
        self.samples: list[UsageSample] = []

    async def add(self, sample: UsageSample) -> None:
        """See UsageHistory."""
        self.samples.append(sample)

    async def since(self, environment_id: str, since: datetime) -> list[Usage]:
        """See UsageHistory."""
        mine = [s for s in self.samples if s.environment_id == environment_id and s.sampled_at >= since]
        return [
            Usage(s.cpu_millis, s.memory_bytes, s.storage_bytes, s.sampled_at)
            for s in sorted(mine, key=lambda sample: sample.sampled_at)
        ]


class PlainSeal:
    """A Seal one can read."""

    def seal(self, secret: str) -> str:
        """Marks it as sealed."""
        return f"sealed:{secret}"
