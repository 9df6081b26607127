"""What the orchestrator needs from outside. The runtime itself is `libs.runtime.port.WorkspaceRuntime`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from libs.common.contracts.environments import DesiredState
from libs.common.contracts.events import EnvironmentWish
from libs.common.contracts.telemetry import UsageSample
from services.orchestrator.domain.model import Change, Environment, WishCause


class EnvironmentStore(Protocol):
    """Environments, with a lease on each, so that of many replicas one works on it at a time.

    `holder` names one taking of a lease, never a process: work that outlived its lease must not pass for its successor.
    Leases compare times of different machines; they are long enough that a clock off by a second does no harm.
    """

    async def accept(self, wish: EnvironmentWish, cause: WishCause | None, now: datetime) -> bool:
        """Keep the wish if it is newer than the one there is, in one write; it is due at once then.

        A deletion outranks everything else, whatever the versions say. `cause` None keeps the cause there is.
        """
        ...

    async def acquire(
        self, environment_id: str, holder: str, now: datetime, until: datetime, *, only_if_due: bool
    ) -> Environment | None:
        """Take the lease; None when another has it, nothing is due, or there is no such environment."""
        ...

    async def renew(self, environment_id: str, holder: str, until: datetime) -> tuple[DesiredState, int] | None:
        """Keep the lease; returns the wish as it is now, or None when the lease is lost."""
        ...

    async def reload(self, environment_id: str, holder: str) -> Environment | None:
        """The environment as it is now; None when the lease is lost."""
        ...

    async def save(self, holder: str, change: Change, now: datetime, runtime: str) -> Environment | None:
        """State and report in one write, under the lease and for the wish the change was made for.

        Returns the environment as it is now; None when the lease is lost or the wish has changed. `change.done` gives
        the lease back, and what others have changed meanwhile need not be in the answer then.
        """
        ...

    async def release(self, environment_id: str, holder: str) -> None:
        """Give the lease back; nothing happens when it is lost."""
        ...

    async def due(self, now: datetime, limit: int) -> Sequence[str]:
        """Environments that want a look now and have no lease, longest waiting first."""
        ...

    async def living(self) -> Sequence[str]:
        """All environments but those whose deletion is done and checked."""
        ...

    async def buried(self, environment_ids: Sequence[str]) -> dict[str, bool]:
        """Of these, the ones we know, and whether each is deleted."""
        ...

    async def unsampled(self, before: datetime, limit: int) -> Sequence[Environment]:
        """Running environments whose last usage sample was taken before then."""
        ...

    async def claim_sample(self, environment_id: str, before: datetime, now: datetime) -> bool:
        """Whether this replica is to take the sample."""
        ...


class UsageSink(Protocol):
    """Where usage samples go."""

    async def publish(self, sample: UsageSample) -> None:
        """Send it; losing one costs a point on a chart."""
        ...


class History(Protocol):
    """What the event stream remembers."""

    async def was_deleted(self, environment_id: str) -> bool:
        """Whether a user has asked to delete this environment. False when the stream no longer reaches back."""
        ...
