"""What the orchestrator needs from outside. Each cluster's runtime is a `libs.runtime.port.WorkspaceRuntime`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from libs.common.contracts.clusters import ClusterConnection
from libs.common.contracts.environments import DesiredState
from libs.common.contracts.events import EnvironmentWish
from libs.common.contracts.telemetry import UsageSample
from libs.runtime.port import ObservedWorkspace, WorkspaceRef, WorkspaceSpec, WorkspaceStats
from services.orchestrator.domain.clusters import Cluster, ClusterChange
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

    async def living(self, cluster_id: str | None = None) -> Sequence[str]:
        """All environments, or all of one cluster, but those whose deletion is done and checked."""
        ...

    async def count(self, cluster_id: str) -> int:
        """How many environments were placed in this cluster and are not deleted."""
        ...

    async def wake(self, cluster_id: str | None, now: datetime) -> int:
        """Have every environment of this cluster looked at soon, whatever it was waiting for; returns how many.

        None: those that are in no cluster, because none takes them or they have just come.
        """
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


class ClusterStore(Protocol):
    """The clusters there are, with the events about them in the same writes."""

    async def all(self) -> Sequence[Cluster]:
        """By id, removed ones too."""
        ...

    async def find(self, cluster_id: str) -> Cluster | None:
        """A removed one too."""
        ...

    async def save(self, change: ClusterChange, *, is_default: bool) -> bool:
        """Write it if the stored version is `change.before` (0: there is none); whether it was."""
        ...

    async def claim_check(self, cluster_id: str, before: datetime, now: datetime) -> bool:
        """Whether this replica is to check it; false when another has done so since `before`."""
        ...


class Fleet(Protocol):
    """The workspaces of all clusters: a call goes to the cluster that `ref` names. See libs.runtime.port."""

    def ids(self) -> Sequence[str]:
        """The clusters there are."""
        ...

    async def check(self, cluster_id: str) -> str:
        """Ask one cluster whether it works, also when calls to it are held back; returns its version."""
        ...

    async def ensure(self, spec: WorkspaceSpec) -> ObservedWorkspace:
        """As the runtime's."""
        ...

    async def stop(self, ref: WorkspaceRef, *, grace_seconds: float = 5.0) -> None:
        """As the runtime's."""
        ...

    async def delete(self, ref: WorkspaceRef) -> None:
        """As the runtime's."""
        ...

    async def inspect(self, ref: WorkspaceRef) -> ObservedWorkspace | None:
        """As the runtime's."""
        ...

    async def stats(self, ref: WorkspaceRef) -> WorkspaceStats:
        """As the runtime's."""
        ...

    async def list(self, cluster_id: str) -> Sequence[ObservedWorkspace]:
        """As the runtime's, of one cluster."""
        ...

    def watch(self, cluster_id: str) -> AsyncIterator[ObservedWorkspace]:
        """As the runtime's, of one cluster."""
        ...


class Placement(Protocol):
    """Where environments go, and what runs them there."""

    async def locate(self, environment: Environment) -> str | None:
        """The cluster that has the workspace of an environment whose record names none; None when none has it.

        Raises RuntimeUnavailableError when one that may well have it cannot be asked.
        """
        ...

    async def place(self, environment: Environment) -> str:
        """The cluster for an environment that has none. Raises WorkspaceRejectedError or RuntimeUnavailableError."""
        ...

    def runtime_of(self, cluster_id: str | None) -> str:
        """`local` or `kubernetes`."""
        ...


class ClusterConnector(Protocol):
    """What can be done with the credentials of a cluster."""

    def seal(self, connection: ClusterConnection) -> str:
        """Text that only our services can read."""
        ...

    async def try_out(self, cluster_id: str, connection: ClusterConnection) -> str:
        """Whether they work; returns the cluster's version. Raises RuntimeUnavailableError saying what is wrong."""
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
