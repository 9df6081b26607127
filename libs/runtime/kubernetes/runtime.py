"""The kubernetes driver: both halves of the runtime port on one cluster. All it knows is in the cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import datetime

from libs.runtime.kubernetes.api import KubeApi
from libs.runtime.kubernetes.connection import Connection
from libs.runtime.kubernetes.errors import ApiError, ApiUnreachableError, driver_error
from libs.runtime.kubernetes.execution import Execution
from libs.runtime.kubernetes.lifecycle import Cluster, Lifecycle
from libs.runtime.kubernetes.logs import Logs
from libs.runtime.kubernetes.namespaces import Namespaces
from libs.runtime.kubernetes.observer import Observer
from libs.runtime.kubernetes.options import ClusterAccess, KubernetesOptions
from libs.runtime.kubernetes.podlogs import PodLogs
from libs.runtime.kubernetes.pods import Pods
from libs.runtime.kubernetes.records import Records
from libs.runtime.kubernetes.session import KubernetesExecStream
from libs.runtime.kubernetes.sockets import Sockets
from libs.runtime.kubernetes.stats import Stats
from libs.runtime.kubernetes.volumes import Volumes
from libs.runtime.port import (
    ByteStream,
    ExecStream,
    ListeningPort,
    LogLine,
    ObservedWorkspace,
    RuntimeUnavailableError,
    TerminalSize,
    WorkspaceRef,
    WorkspaceSpec,
    WorkspaceStats,
)

log = logging.getLogger(__name__)

# A server that is well answers this within milliseconds.
_CHECK_S = 5.0
# The loop itself keeps only weak references to tasks.
_closing: set[asyncio.Future[None]] = set()


@dataclass(slots=True)
class _Opened:
    api: KubeApi
    lifecycle: Lifecycle
    observer: Observer
    stats: Stats
    execution: Execution
    logs: Logs


class KubernetesRuntime:
    """WorkspaceRuntime and ExecRuntime in one; any number of processes may use the same cluster at the same time."""

    def __init__(self, access: ClusterAccess, options: KubernetesOptions | None = None) -> None:
        self._options = options or KubernetesOptions()
        self._connection = Connection(access)
        self._opened: _Opened | None = None

    async def open(self) -> None:
        """Read the credentials and ask the cluster for its version. Raises RuntimeUnavailableError."""
        await self._connection.open()
        opened = self._put_together()
        with _port_errors():
            version = await opened.api.request("GET", "/version")
        log.info("cluster %s runs Kubernetes %s", self._options.cluster, version.get("gitVersion"))
        self._opened = opened

    def _put_together(self) -> _Opened:
        options = self._options
        api = KubeApi(self._connection, options.requests_in_flight)
        records, pod_logs, observer = Records(api), PodLogs(api), Observer(api, options)
        execution = Execution(api, Sockets(self._connection), options)
        cluster = Cluster(
            api=api,
            options=options,
            namespaces=Namespaces(api, options),
            records=records,
            volumes=Volumes(api, options, records),
            pods=Pods(api, options),
            logs=pod_logs,
            observer=observer,
        )
        return _Opened(
            api=api,
            lifecycle=Lifecycle(cluster),
            observer=observer,
            stats=Stats(api, execution, options),
            execution=execution,
            logs=Logs(api, pod_logs, options),
        )

    async def close(self) -> None:
        """Close this process's streams and connections; workspaces stay as they are."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.execution.close()
        await self._connection.close()

    async def check(self) -> str:
        """Ask for the version, with our credentials: everybody may know it, but not with credentials that are wrong."""
        try:
            with _port_errors():
                async with asyncio.timeout(_CHECK_S):
                    version = await self._need().api.request("GET", "/version")
        except TimeoutError as error:
            raise RuntimeUnavailableError(
                f"The cluster does not answer within {_CHECK_S:.0f} s.", reason="ClusterUnreachable"
            ) from error
        return str(version.get("gitVersion"))

    async def ensure(self, spec: WorkspaceSpec) -> ObservedWorkspace:
        """See the port."""
        with _port_errors():
            return await self._need().lifecycle.ensure(spec)

    async def stop(self, ref: WorkspaceRef, *, grace_seconds: float = 5.0) -> None:
        """See the port."""
        with _port_errors():
            await self._need().lifecycle.stop(ref, grace_seconds)

    async def delete(self, ref: WorkspaceRef) -> None:
        """See the port."""
        with _port_errors():
            await self._need().lifecycle.delete(ref)

    async def inspect(self, ref: WorkspaceRef) -> ObservedWorkspace | None:
        """See the port."""
        with _port_errors():
            return await self._need().observer.inspect(ref)

    async def list(self) -> Sequence[ObservedWorkspace]:
        """See the port."""
        with _port_errors():
            return await self._need().observer.list()

    async def watch(self) -> AsyncIterator[ObservedWorkspace]:
        """See the port."""
        with _port_errors():
            async with aclosing(self._need().observer.watch()) as changes:
                async for observed in changes:
                    yield observed

    async def stats(self, ref: WorkspaceRef) -> WorkspaceStats:
        """See the port."""
        with _port_errors():
            return await self._need().stats.sample(ref)

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
        begin = self._need().execution.start(ref, argv, tty=tty, size=size, environment=env or {})
        starting = asyncio.create_task(begin)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # Nobody will ever close what is on its way.
            starting.add_done_callback(_close_unclaimed)
            raise

    async def logs(
        self,
        ref: WorkspaceRef,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: datetime | None = None,
    ) -> AsyncIterator[LogLine]:
        """See the port. Raises WorkspaceNotFoundError when there is no such workspace."""
        with _port_errors():
            async with aclosing(self._need().logs.lines(ref, follow=follow, tail=tail, since=since)) as lines:
                async for line in lines:
                    yield line

    async def connect(self, ref: WorkspaceRef, port: int) -> ByteStream:
        """See the port."""
        return await self._need().execution.connect(ref, port)

    async def ports(self, ref: WorkspaceRef) -> Sequence[ListeningPort]:
        """See the port."""
        return await self._need().execution.ports(ref)

    def _need(self) -> _Opened:
        if self._opened is None:
            raise RuntimeUnavailableError("The kubernetes runtime is not open.", reason="RuntimeClosed")
        return self._opened


@contextmanager
def _port_errors() -> Iterator[None]:
    """What the API raises, in the port's words."""
    try:
        yield
    except (ApiError, ApiUnreachableError) as error:
        raise driver_error(error) from error


def _close_unclaimed(starting: asyncio.Task[KubernetesExecStream]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        closing = asyncio.ensure_future(starting.result().close())
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)
