"""What the service needs from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from libs.common.contracts.clusters import ClusterState
from libs.common.contracts.environments import EnvironmentStatus
from libs.common.contracts.events import Event
from libs.common.contracts.telemetry import UsageSample
from services.envs.allowance import Occupant
from services.envs.catalog import Template
from services.envs.entities import Change, Environment, Usage
from services.envs.plans import Account, Place


class TakenError(Exception):
    """A unique index refused the write: the slot or the name went to somebody else."""


class EnvironmentStore(Protocol):
    """Environments, each with the events of its last changes in the same document."""

    async def places(self, user_id: str) -> list[Place]:
        """The slots and names of the user's live environments."""
        ...

    async def occupants(self, user_id: str) -> list[Occupant]:
        """The user's live environments, and which of them are to run."""
        ...

    async def insert(self, environment: Environment, events: Sequence[Event]) -> None:
        """Raises TakenError."""
        ...

    async def save(self, change: Change, events: Sequence[Event]) -> bool:
        """Write the difference if the version is still that of `change.before`, else False. Raises TakenError."""
        ...

    async def get(self, environment_id: str) -> Environment | None:
        """Any environment, a terminated one too."""
        ...

    async def page(
        self, user_id: str, *, status: EnvironmentStatus | None, limit: int, before: str | None
    ) -> list[Environment]:
        """The user's live environments, newest first, older than the id `before`; without their variables."""
        ...

    async def set_usage(self, environment_id: str, usage: Usage) -> bool:
        """Keep the newest sample of a live environment; does not touch its version. False when there is none."""
        ...

    async def touch(self, environment_id: str, at: datetime) -> None:
        """Somebody worked in it, a terminated one too; keeps the latest time, does not touch its version."""
        ...

    async def count_by_template(self, name: str) -> int:
        """How many live environments this template has. Costs the more the more there are."""
        ...


class UsageHistory(Protocol):
    """Samples of the last days."""

    async def add(self, sample: UsageSample) -> None:
        """One per minute is kept: the last."""
        ...

    async def since(self, environment_id: str, since: datetime) -> list[Usage]:
        """In order of time."""
        ...


class AccountStore(Protocol):
    """What auth's events said about users."""

    async def get(self, user_id: str) -> Account | None:
        """None when no event of this user has arrived yet."""
        ...


class DepartureStore(Protocol):
    """Deleted users, until it is told that nothing of theirs is left here."""

    async def begin(self, user_id: str, environments: int) -> None:
        """Note how many environments the deletion found; only the first number counts."""
        ...

    async def untold(self, user_id: str) -> int | None:
        """That number, while it is noted and the end is not told."""
        ...

    async def tell(self, user_id: str, environments: int, event: Event) -> None:
        """Nothing is left: with its event in the same write, once."""
        ...


class TemplateStore(Protocol):
    """Templates by name."""

    async def all(self) -> list[Template]:
        """In order of name."""
        ...

    async def get(self, name: str) -> Template | None:
        """By its own name, not by an alias."""
        ...

    async def insert(self, template: Template) -> bool:
        """False when the name is taken."""
        ...

    async def replace(self, template: Template) -> bool:
        """False when there is none of this name."""
        ...


class Seal(Protocol):
    """Encrypts environment variables at rest and on the bus."""

    def seal(self, secret: str) -> str:
        """Text that only holders of the key can read."""
        ...


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as users may see it, and where it stands in the stream."""

    sequence: int
    user_id: str | None
    type: str
    body: dict[str, Any]


class ClusterStore(Protocol):
    """The read model of clusters."""

    async def keep(self, state: ClusterState) -> None:
        """Unless something as new is known."""
        ...

    async def regions(self) -> set[str]:
        """Of clusters that are not removed; none while no event has told of any."""
        ...


@dataclass(frozen=True, slots=True)
class EventPage:
    """`next_after` is the sequence to go on after, None at the end."""

    events: list[StoredEvent]
    next_after: int | None


class EventHistory(Protocol):
    """The event stream, read from the past."""

    async def page(self, environment_id: str, *, after: int, limit: int) -> EventPage:
        """Events about one environment with a sequence above `after`, in order. Raises UnavailableError."""
        ...


class LiveStream(Protocol):
    """Live events for one client."""

    async def next(self, timeout_s: float) -> StoredEvent | Gap | None:
        """The next one; None when the time is over. Raises StreamClosedError when there will be no more."""
        ...

    def close(self) -> None:
        """No more events."""
        ...


class LiveEvents(Protocol):
    """The event stream as it grows."""

    async def open(self, *, user_id: str, session_id: str, sees_all: bool, after: int | None) -> LiveStream:
        """Listen, beginning with what came after the sequence `after`; what cannot be delivered any more is a Gap.

        Raises TooManyStreamsError or UnavailableError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Gap:
    """Events between the sequence a client has seen and `resumes_after` can no longer be delivered: it must reload."""

    seen: int
    resumes_after: int


class StreamClosedError(Exception):
    """The server ends the stream: it shuts down, the session has ended, or the client was too slow."""
