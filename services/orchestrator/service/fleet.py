"""The workspaces of all clusters behind one object: each call goes to the cluster that the workspace is in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager

from libs.runtime.fleet import Fleet
from libs.runtime.port import (
    ObservedWorkspace,
    RuntimeUnavailableError,
    WorkspaceNotFoundError,
    WorkspaceRef,
    WorkspaceRejectedError,
    WorkspaceRuntime,
    WorkspaceSpec,
    WorkspaceStats,
)
from libs.runtime.tracing import runtime_call


class FleetRuntime:
    """`services.orchestrator.ports.Fleet`.

    At most `in_flight` calls that change something are on their way in each cluster. A cluster that is `held` back is
    not asked: calls fail at once, so that a dead cluster costs the others nothing. In one that is gone for good nothing
    can be started, and nothing is left to stop or delete.
    """

    def __init__(self, *, in_flight: int) -> None:
        self._fleet: Fleet[WorkspaceRuntime] = Fleet()
        self._in_flight = in_flight
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._held: dict[str, str] = {}
        self._gone: set[str] = set()

    def put(self, cluster_id: str, made_from: Hashable, make: Callable[[], WorkspaceRuntime]) -> bool:
        """Work with this cluster; returns whether its driver is a new one."""
        self._gone.discard(cluster_id)
        self._slots.setdefault(cluster_id, asyncio.Semaphore(self._in_flight))
        return self._fleet.put(cluster_id, made_from, make)

    def remove(self, cluster_id: str) -> bool:
        """This cluster is gone for good; returns whether that was news."""
        is_news = cluster_id not in self._gone
        self._fleet.drop(cluster_id)
        self._slots.pop(cluster_id, None)
        self._held.pop(cluster_id, None)
        self._gone.add(cluster_id)
        return is_news

    def hold(self, cluster_id: str, message: str) -> None:
        """Do not ask this cluster until `resume`; `message` says why."""
        self._held[cluster_id] = message

    def resume(self, cluster_id: str) -> bool:
        """Ask it again; returns whether it was held."""
        return self._held.pop(cluster_id, None) is not None

    def ids(self) -> Sequence[str]:
        """See the port."""
        return list(self._slots)

    async def close(self) -> None:
        """Close every driver."""
        await self._fleet.close()

    async def check(self, cluster_id: str) -> str:
        """See the port."""
        return await (await self._fleet.driver(cluster_id)).check()

    async def ensure(self, spec: WorkspaceSpec) -> ObservedWorkspace:
        """See the port."""
        if spec.ref.cluster in self._gone:
            raise WorkspaceRejectedError(
                f"The cluster {spec.ref.cluster} was removed, and the workspace with its files is out of reach. Delete "
                "the environment.",
                reason="ClusterRemoved",
            )
        async with self._changing("ensure", spec.ref) as driver:
            return await driver.ensure(spec)

    async def stop(self, ref: WorkspaceRef, *, grace_seconds: float = 5.0) -> None:
        """See the port."""
        if ref.cluster not in self._gone:
            async with self._changing("stop", ref) as driver:
                await driver.stop(ref, grace_seconds=grace_seconds)

    async def delete(self, ref: WorkspaceRef) -> None:
        """See the port."""
        if ref.cluster not in self._gone:
            async with self._changing("delete", ref) as driver:
                await driver.delete(ref)

    async def inspect(self, ref: WorkspaceRef) -> ObservedWorkspace | None:
        """See the port."""
        if ref.cluster in self._gone:
            return None
        with runtime_call("inspect", ref):
            return await (await self._driver(ref.cluster)).inspect(ref)

    async def stats(self, ref: WorkspaceRef) -> WorkspaceStats:
        """See the port."""
        if ref.cluster in self._gone:
            raise WorkspaceNotFoundError(f"The cluster {ref.cluster} was removed.")
        return await (await self._driver(ref.cluster)).stats(ref)

    async def list(self, cluster_id: str) -> Sequence[ObservedWorkspace]:
        """See the port."""
        return await (await self._driver(cluster_id)).list()

    async def watch(self, cluster_id: str) -> AsyncIterator[ObservedWorkspace]:
        """See the port."""
        driver = await self._driver(cluster_id)
        async for observed in driver.watch():
            yield observed

    @asynccontextmanager
    async def _changing(self, operation: str, ref: WorkspaceRef) -> AsyncIterator[WorkspaceRuntime]:
        async with self._slots.get(ref.cluster) or asyncio.Semaphore():
            with runtime_call(operation, ref):
                yield await self._driver(ref.cluster)

    async def _driver(self, cluster_id: str) -> WorkspaceRuntime:
        held = self._held.get(cluster_id)
        if held is not None:
            raise RuntimeUnavailableError(held, reason="ClusterUnreachable")
        return await self._fleet.driver(cluster_id)
