"""Administration of clusters: add, change, drain, remove."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from libs.common.clock import Clock
from libs.common.contracts.clusters import DEFAULT_CLUSTER, ClusterConnection, ClusterHealth, ClusterStatus
from libs.runtime.port import DriverError
from services.orchestrator.domain import clusters as domain
from services.orchestrator.domain.clusters import CheckResult, Cluster, ClusterChange, ClusterEdit
from services.orchestrator.errors import (
    ClusterConflictError,
    ClusterExistsError,
    ClusterFixedError,
    ClusterInUseError,
    ClusterInvalidError,
    ClusterNotFoundError,
    ClusterUnusableError,
)
from services.orchestrator.ports import ClusterConnector, ClusterStore, EnvironmentStore

_TRIES = 5
TRY_OUT_TIMEOUT_S = 10.0
# A DNS label, RFC 1123 section 2.1, short enough to go with an environment's id into labels and subjects.
_LABEL = re.compile(r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NewCluster:
    """What an administrator registers. `terminal` is the terminal service's own access; None shares `connection`."""

    name: str
    region: str
    connection: ClusterConnection
    terminal: ClusterConnection | None = None
    is_default: bool = False
    capacity: int | None = None


@dataclass(frozen=True, slots=True)
class ClusterView:
    """A cluster as administrators see it."""

    cluster: Cluster
    environments: int
    is_default: bool

    def answered(self, result: CheckResult) -> ClusterView:
        """The same with what the cluster answered just now."""
        return replace(self, cluster=domain.answered(self.cluster, result))


class ClusterAdministration:
    """The use cases of administrators. `verify` everywhere: try credentials out before they are stored."""

    def __init__(
        self, store: ClusterStore, environments: EnvironmentStore, connector: ClusterConnector, clock: Clock
    ) -> None:
        self._store = store
        self._environments = environments
        self._connector = connector
        self._clock = clock

    async def listed(self) -> list[ClusterView]:
        """All but the removed ones."""
        known = await self._living()
        return [await self._view(cluster, known) for cluster in known]

    async def get(self, name: str) -> ClusterView:
        """Raises ClusterNotFoundError."""
        return await self._view(await self._find(name), await self._living())

    async def add(self, new: NewCluster, *, verify: bool = True) -> ClusterView:
        """Raises ClusterExistsError, ClusterInvalidError or ClusterUnusableError."""
        name, region = label("name", new.name), label("region", new.region)
        there = await self._store.find(name)
        if name == DEFAULT_CLUSTER or (there is not None and not there.is_removed):
            raise ClusterExistsError(name)
        server_version = None
        if verify:
            server_version = await self._try_out(name, new.connection)
            if new.terminal is not None:
                await self._try_out(name, new.terminal)
        sealed = self._connector.seal(new.connection)
        now = self._clock()
        cluster = Cluster(
            id=name,
            region=region,
            runtime="kubernetes",
            created_at=now,
            updated_at=now,
            connection_sealed=sealed,
            terminal_sealed=sealed if new.terminal is None else self._connector.seal(new.terminal),
            default_since=now if new.is_default else None,
            capacity=new.capacity,
            health=ClusterHealth.HEALTHY if verify else ClusterHealth.UNKNOWN,
            server_version=server_version,
            version=there.version + 1 if there is not None else 1,
        )
        if not await self._save(domain.registered(cluster)):
            raise ClusterExistsError(name)
        return await self.get(name)

    async def update(
        self,
        name: str,
        wanted: ClusterEdit,
        *,
        connection: ClusterConnection | None = None,
        terminal: ClusterConnection | None = None,
        verify: bool = True,
    ) -> ClusterView:
        """Raises ClusterNotFoundError, ClusterFixedError, ClusterInvalidError or ClusterUnusableError."""
        cluster = await self._find(name)
        if cluster.id == DEFAULT_CLUSTER and (connection or terminal or wanted.region):
            raise ClusterFixedError(
                "The cluster 'default' comes from the settings: change REGION_NAME, RUNTIME or KUBECONFIG and restart"
            )
        for access in (connection, terminal):
            if access is not None and verify:
                await self._try_out(name, access)
        edit = replace(
            wanted,
            region=label("region", wanted.region) if wanted.region else None,
            connection_sealed=None if connection is None else self._connector.seal(connection),
            terminal_sealed=None if terminal is None else self._connector.seal(terminal),
        )
        await self._change(name, lambda current: domain.edit(current, edit, self._clock()))
        return await self.get(name)

    async def drain(self, name: str) -> ClusterView:
        """Place no new environment there; those it has go on."""
        return await self.update(name, ClusterEdit(status=ClusterStatus.DRAINING))

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Forget it and its credentials. `force`: also when environments live on it, which are lost to their owners.

        Raises ClusterNotFoundError, ClusterFixedError or ClusterInUseError.
        """
        await self._find(name)
        if name == DEFAULT_CLUSTER:
            raise ClusterFixedError("The cluster 'default' comes from the settings and cannot be removed; drain it")
        # Drained first, so that none is placed there between the count and the removal.
        await self._change(
            name, lambda current: domain.edit(current, ClusterEdit(status=ClusterStatus.DRAINING), self._clock())
        )
        count = await self._environments.count(name)
        if count and not force:
            raise ClusterInUseError(
                f"{count} {'environment lives' if count == 1 else 'environments live'} on the cluster {name!r}. It is "
                "drained now; remove it when they are deleted, or by force: their files are out of reach then"
            )
        await self._change(name, lambda current: domain.removed(current, self._clock()))
        await self._environments.wake(name, self._clock())

    async def _try_out(self, name: str, connection: ClusterConnection) -> str:
        try:
            async with asyncio.timeout(TRY_OUT_TIMEOUT_S):
                return await self._connector.try_out(name, connection)
        except DriverError as error:
            raise ClusterUnusableError(f"The cluster cannot be used: {error}") from error
        except TimeoutError as error:
            text = f"The cluster cannot be used: it gave no answer within {TRY_OUT_TIMEOUT_S:.0f} s"
            raise ClusterUnusableError(text) from error
        except Exception as error:
            # Only the kind: what it stumbled over came with the credentials, and its words may repeat them.
            log.warning("a cluster cannot be tried out", cluster=name, error=type(error).__name__)
            raise ClusterUnusableError(
                "The cluster cannot be used: its kubeconfig makes no sense, or what answers is no Kubernetes API server"
            ) from None

    async def _find(self, name: str) -> Cluster:
        cluster = await self._store.find(name)
        if cluster is None or cluster.is_removed:
            raise ClusterNotFoundError(name)
        return cluster

    async def _living(self) -> Sequence[Cluster]:
        return [cluster for cluster in await self._store.all() if not cluster.is_removed]

    async def _view(self, cluster: Cluster, known: Sequence[Cluster]) -> ClusterView:
        default = domain.default_of(known)
        is_default = default is not None and default.id == cluster.id
        return ClusterView(cluster, await self._environments.count(cluster.id), is_default)

    async def _change(self, name: str, change: Callable[[Cluster], ClusterChange]) -> None:
        for _ in range(_TRIES):
            if await self._save(change(await self._find(name))):
                return
        raise ClusterConflictError

    async def _save(self, change: ClusterChange) -> bool:
        if change.event is None and change.before:
            return True
        others = [cluster for cluster in await self._store.all() if cluster.id != change.cluster.id]
        default = domain.default_of([*others, change.cluster])
        is_default = default is not None and default.id == change.cluster.id
        return await self._store.save(change, is_default=is_default)


def label(what: str, text: str) -> str:
    """`text` as a DNS label of 1 to 40 characters. Raises ClusterInvalidError."""
    found = text.strip().lower()
    if not _LABEL.fullmatch(found):
        raise ClusterInvalidError(
            f"The {what} {text!r} cannot be used: 1 to 40 letters a-z, digits and hyphens, no hyphen at either end"
        )
    return found
