"""Drivers of several clusters, by the cluster's id. Each is made at once and opened at its first use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from libs.runtime.holder.held import HoldTerms, find_shell, start_shell
from libs.runtime.holder.shells import Shell
from libs.runtime.port import (
    ByteStream,
    ExecRuntime,
    ExecStream,
    ListeningPort,
    LogLine,
    RuntimeUnavailableError,
    TerminalSize,
    WorkspaceRef,
)
from libs.runtime.tracing import runtime_call


class Openable(Protocol):
    """What both halves of a driver have."""

    async def open(self) -> None:
        """Prepare for use. Raises RuntimeUnavailableError."""
        ...

    async def close(self) -> None:
        """Release what this process holds."""
        ...


DriverT = TypeVar("DriverT", bound=Openable)


@dataclass(slots=True)
class _Member(Generic[DriverT]):
    driver: DriverT
    made_from: Hashable
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    touched: bool = False
    opened: bool = False


class Fleet(Generic[DriverT]):
    """Finds the driver of a cluster. A driver that is replaced or dropped lives on for what still runs through it."""

    def __init__(self) -> None:
        self._members: dict[str, _Member[DriverT]] = {}
        self._retired: list[_Member[DriverT]] = []

    def put(self, cluster: str, made_from: Hashable, make: Callable[[], DriverT]) -> bool:
        """Have a driver for this cluster, made anew when `made_from` is another than before; returns whether it was."""
        member = self._members.get(cluster)
        if member is not None and member.made_from == made_from:
            return False
        fresh = _Member(make(), made_from)
        self.drop(cluster)
        self._members[cluster] = fresh
        return True

    def drop(self, cluster: str) -> None:
        """Find this cluster no longer."""
        member = self._members.pop(cluster, None)
        if member is not None and member.touched:
            self._retired.append(member)

    def __contains__(self, cluster: str) -> bool:
        return cluster in self._members

    async def driver(self, cluster: str) -> DriverT:
        """Opened. Raises RuntimeUnavailableError when there is no such cluster, or what opening it raises."""
        member = self._members.get(cluster)
        if member is None:
            raise RuntimeUnavailableError(f"There is no cluster {cluster!r} here.", reason="ClusterUnknown")
        if not member.opened:
            async with member.opening:
                if not member.opened:
                    # Even one that could not be opened may hold something by now.
                    member.touched = True
                    await member.driver.open()
                    member.opened = True
        return member.driver

    async def close(self) -> None:
        """Close every driver, replaced ones too."""
        members = [*self._members.values(), *self._retired]
        self._members, self._retired = {}, []
        await asyncio.gather(*(member.driver.close() for member in members if member.touched), return_exceptions=True)


class FleetExec:
    """ExecRuntime on a fleet: the workspace's cluster decides which driver is used.

    `refresh` is called before a driver is looked for, so that news of a cluster is heeded in time.
    """

    def __init__(self, fleet: Fleet[ExecRuntime], refresh: Callable[[str], Awaitable[None]]) -> None:
        self.fleet = fleet
        self.refresh = refresh

    async def open(self) -> None:
        """Nothing to do: drivers are opened when they are needed."""

    async def close(self) -> None:
        """See the port."""
        await self.fleet.close()

    async def exec(
        self,
        ref: WorkspaceRef,
        argv: Sequence[str] | None = None,
        *,
        tty: bool = True,
        size: TerminalSize = TerminalSize(),  # noqa: B008 - frozen
        env: Mapping[str, str] | None = None,
    ) -> ExecStream:
        """See the port."""
        with runtime_call("exec", ref):
            driver = await self._driver(ref)
            return await driver.exec(ref, argv, tty=tty, size=size, env=env)

    async def logs(
        self,
        ref: WorkspaceRef,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: datetime | None = None,
    ) -> AsyncGenerator[LogLine]:
        """See the port."""
        driver = await self._driver(ref)
        lines = driver.logs(ref, follow=follow, tail=tail, since=since)
        try:
            async for line in lines:
                yield line
        finally:
            # Now, not whenever the garbage is collected: it may hold a connection.
            if isinstance(lines, AsyncGenerator):
                await lines.aclose()

    async def connect(self, ref: WorkspaceRef, port: int) -> ByteStream:
        """See the port."""
        with runtime_call("connect", ref):
            return await (await self._driver(ref)).connect(ref, port)

    async def ports(self, ref: WorkspaceRef) -> Sequence[ListeningPort]:
        """See the port."""
        with runtime_call("ports", ref):
            return await (await self._driver(ref)).ports(ref)

    async def start_shell(self, ref: WorkspaceRef, session_id: str, size: TerminalSize, terms: HoldTerms) -> Shell:
        """In the way of the workspace's cluster; see ShellRuntime."""
        with runtime_call("start_shell", ref):
            return await start_shell(await self._driver(ref), ref, session_id, size, terms)

    async def find_shell(self, ref: WorkspaceRef, session_id: str) -> Shell:
        """In the way of the workspace's cluster; see ShellRuntime."""
        with runtime_call("find_shell", ref):
            return await find_shell(await self._driver(ref), ref, session_id)

    async def _driver(self, ref: WorkspaceRef) -> ExecRuntime:
        await self.refresh(ref.cluster)
        return await self.fleet.driver(ref.cluster)
