"""What the HTTP handlers share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web

from tests.fakes.kube.access import Access
from tests.fakes.kube.api import Api
from tests.fakes.kube.errors import StatusError, internal, too_many_requests, unavailable, unknown_path
from tests.fakes.kube.faults import Fault, FaultPlan
from tests.fakes.kube.node.kubelet import Kubelet
from tests.fakes.kube.node.pace import Pace
from tests.fakes.kube.resources import ALL_VERBS, Resource, find
from tests.fakes.kube.store import Store


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names. `namespace` is None across all namespaces."""

    resource: Resource
    namespace: str | None
    name: str
    subresource: str
    rest: str = ""


@dataclass(slots=True)
class Context:
    """The parts of the cluster and the switches that tests turn."""

    store: Store
    api: Api
    access: Access
    kubelet: Kubelet
    pace: Pace
    faults: FaultPlan = field(default_factory=FaultPlan)
    metrics: str = "on"
    gone_status: bool = False
    exec_protocols: tuple[str, ...] = ("v5.channel.k8s.io", "v4.channel.k8s.io")
    watch_epoch: int = 0
    stopping: bool = False
    frozen: asyncio.Event = field(default_factory=asyncio.Event)
    streams: set[asyncio.Task[object]] = field(default_factory=set)

    def drop_watches(self) -> None:
        """The server hangs up on every watch."""
        self.watch_epoch += 1
        self.store.wake()

    async def until_thawed(self) -> None:
        """While the network is dead."""
        while self.frozen.is_set():
            await self.store.changed(1.0)

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """A long request: it is cancelled when the server stops."""
        task = asyncio.current_task()
        assert task is not None
        self.streams.add(task)
        try:
            yield
        finally:
            self.streams.discard(task)


def parse_target(path: str) -> Target:
    """The resource behind a URL path. Raises 404."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"] and len(parts) > 2:
        group, version, parts = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 3:
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        raise unknown_path()
    namespace: str | None = None
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in ("status", "finalize"):
        namespace, parts = parts[1], parts[2:]
    resource = find(group, version, parts[0])
    if resource is None or (namespace is not None and not resource.namespaced):
        raise unknown_path()
    padded = [*parts[1:], "", "", ""]
    if padded[1] and padded[1] not in resource.subresources:
        raise unknown_path()
    return Target(resource, namespace, padded[0], padded[1], "/".join(parts[3:]))


def check_verb(target: Target, verb: str) -> None:
    """Raises 405."""
    if verb in ALL_VERBS and verb not in target.resource.verbs and not target.subresource:
        raise StatusError(
            405, "MethodNotAllowed", "the server does not allow this method on the requested resource", details={}
        )


def fault_error(fault: Fault) -> StatusError:
    """The answer of an injected fault."""
    if fault is Fault.TOO_MANY_REQUESTS:
        return too_many_requests()
    return unavailable() if fault is Fault.UNAVAILABLE else internal("etcdserver: request timed out")


def status_response(error: StatusError) -> web.Response:
    """A failure as the body of an answer."""
    return web.json_response(error.status(), status=error.code, headers=error.headers)
