"""The terminal service on a real runtime, with one running workspace, and a client for its files and commands."""

from __future__ import annotations

import asyncio
import io
import random
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import httpx
import pytest

from libs.common.contracts.identity import Plan
from libs.common.ids import new_id
from libs.runtime.kubernetes.options import ClusterAccess
from libs.runtime.kubernetes.runtime import KubernetesRuntime
from libs.runtime.local.isolation import IsolationPolicy
from libs.runtime.local.runtime import LocalRuntime
from libs.runtime.port import WorkspaceLimits, WorkspaceRef
from tests.fakes.exec_runtime import HostExecRuntime
from tests.fakes.kube import FakeCluster
from tests.integration.terminal.harness import TIMEOUT_S, Service, running_service
from tests.runtime_contract.kube import contract_image
from tests.runtime_contract.workspaces import IMAGE, Driver, Workspaces, make_spec
from tests.support.app import eventually
from tests.support.servers import Servers

LOCAL = pytest.mark.parametrize("desk", ["local"], indirect=True)
"""For what does not depend on the runtime."""


@dataclass
class Desk:
    """A user with a running workspace. `runtime` is the orchestrator's half, the service has one of its own."""

    service: Service
    runtime: Driver
    user_id: str
    environment_id: str

    @property
    def ref(self) -> WorkspaceRef:
        return WorkspaceRef(self.environment_id, self.user_id)

    @asynccontextmanager
    async def client(self, token: str | None = None, *, plan: Plan = Plan.FREE) -> AsyncIterator[httpx.AsyncClient]:
        """As this user, or whoever has the token; addresses are below the environment's."""
        token = token or self.service.issuer.token(self.user_id, plan=plan)
        base_url = f"http://{self.service.address}/api/v1/environments/{self.environment_id}"
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=base_url, timeout=TIMEOUT_S, headers=headers) as client:
            yield client

    @asynccontextmanager
    async def another(self, limits: WorkspaceLimits) -> AsyncIterator[Desk]:
        """One more workspace of this user."""
        desk = replace(self, environment_id=new_id())
        workspaces = Workspaces(self.runtime)
        await workspaces.start(replace(make_spec(ref=desk.ref), limits=limits))
        try:
            await self.service.environment(self.user_id, environment_id=desk.environment_id)
            yield desk
        finally:
            await workspaces.remove_all()

    async def send(self, method: str, target: str, *headers: str, body: bytes = b"") -> bytes:
        """The answer to a request that no client would send. `target` is below the environment's address."""
        host, port = self.service.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            head = f"{method} /api/v1/environments/{self.environment_id}{target} HTTP/1.1"
            token = self.service.issuer.token(self.user_id)
            lines = [head, "Host: x", f"Authorization: Bearer {token}", "Connection: close", *headers]
            writer.write("".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body)
            return await asyncio.wait_for(reader.read(), TIMEOUT_S)
        finally:
            writer.close()

    async def upload(self, target: str, token: str, pieces: Iterable[bytes]) -> bytes:
        """Send pieces, and when there are no more of them wait, until there is an answer."""
        host, port = self.service.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        answering = asyncio.create_task(reader.readuntil(b"}"))
        try:
            head = f"PUT /api/v1/environments/{self.environment_id}{target} HTTP/1.1\r\nHost: x\r\n"
            writer.write(f"{head}Authorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            for piece in pieces:
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
                if answering.done():
                    break
            return await asyncio.wait_for(answering, TIMEOUT_S)
        finally:
            answering.cancel()
            writer.close()

    async def run(self, command: str, *, stdin: bytes = b"") -> bytes:
        """What a command in the workspace prints."""
        code, out, err = await Workspaces(self.runtime).run(self.ref, command, stdin=stdin)
        assert code == 0, (out, err)
        return out

    async def count(self, mark: str) -> int:
        """How many processes of the workspace carry `mark` on their command line."""
        return int(await self.run(f"ps -eo args | grep -c '[s]leep {mark}' || true"))

    async def ended(self, mark: str) -> None:
        """Until there is none of them."""

        async def none() -> bool:
            return await self.count(mark) == 0

        await eventually(none)

    async def nothing_waits(self) -> None:
        """Until no upload is left where uploads wait."""

        async def tidy() -> bool:
            return await self.run("ls -A | grep -c '^.devpocket-uploads$' || true") == b"0\n"

        await eventually(tidy)


def file(path: bytes | str) -> str:
    """The address of a file."""
    return f"/files/{quote(path)}"


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a problem."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body: Mapping[str, Any] = answer.json()
    assert body["status"] == answer.status_code
    assert body["detail"]
    return answer.status_code, body["code"]


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def archive_of(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    """A tar.gz of files (name, content) and of whatever else."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return packed.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@contextmanager
def open_folder() -> Iterator[Path]:
    """A directory that the users inside workspaces may pass through, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="devpocket-files-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def sites(kind: str) -> AsyncIterator[tuple[Driver, Callable[[], HostExecRuntime]]]:
    """The test's half of a runtime, opened, and how to make one for a service, which opens it."""
    with open_folder() as folder:
        if kind == "local":
            ours = LocalRuntime(folder, IsolationPolicy.AUTO)
            await ours.open()
            yield cast("Driver", ours), lambda: cast("HostExecRuntime", LocalRuntime(folder, IsolationPolicy.AUTO))
            await ours.close()
            return
        async with FakeCluster(images={IMAGE: contract_image()}, folder=folder) as cluster:
            access = ClusterAccess(kubeconfig=cluster.kubeconfig)
            pod_driver = KubernetesRuntime(access)
            await pod_driver.open()
            yield cast("Driver", pod_driver), lambda: cast("HostExecRuntime", KubernetesRuntime(access))
            await pod_driver.close()


@asynccontextmanager
async def desk_on(kind: str, backend: Servers, **changes: Any) -> AsyncIterator[Desk]:
    """On `local` or `kubernetes`."""
    async with sites(kind) as (ours, driver), running_service(backend, driver(), **changes) as service:
        desk = Desk(service, ours, new_id(), new_id())
        workspaces = Workspaces(ours)
        await workspaces.start(make_spec(ref=desk.ref))
        try:
            await service.environment(desk.user_id, environment_id=desk.environment_id)
            yield desk
        finally:
            await workspaces.remove_all()


@dataclass
class Site:
    """A user's running workspace on a runtime that any number of replicas may use, each with a driver of its own."""

    driver: Callable[[], HostExecRuntime]
    runtime: Driver
    user_id: str
    environment_id: str

    async def touch(self, name: str) -> None:
        """Make a file in the workspace."""
        await Workspaces(self.runtime).run(WorkspaceRef(self.environment_id, self.user_id), ["touch", name])


@asynccontextmanager
async def site_on(kind: str) -> AsyncIterator[Site]:
    """On `local` or `kubernetes`."""
    async with sites(kind) as (ours, driver):
        site = Site(driver, ours, new_id(), new_id())
        workspaces = Workspaces(ours)
        await workspaces.start(make_spec(ref=WorkspaceRef(site.environment_id, site.user_id)))
        try:
            yield site
        finally:
            await workspaces.remove_all()
