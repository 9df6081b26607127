"""Two users with a workspace each, and a web application in each of them, at the same port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from libs.common.contracts.identity import Plan
from libs.common.ids import new_id
from libs.runtime.port import WorkspaceRef
from tests.integration.terminal.harness import TIMEOUT_S, Service, running_service
from tests.integration.terminal.workspace.harness import sites
from tests.runtime_contract.workspaces import Driver, Workspaces, make_spec, opened, read_until
from tests.support import webapp
from tests.support.servers import Servers

PORT = 8123


@dataclass
class Owner:
    """A user, and an environment of theirs in which the application runs. `name` is what the application says."""

    service: Service
    user_id: str
    login_id: str
    environment_id: str
    name: str

    @property
    def token(self) -> str:
        return self.service.issuer.token(self.user_id, session_id=self.login_id, plan=Plan.FREE)

    @property
    def prefix(self) -> str:
        return f"/preview/{self.environment_id}/{PORT}"

    def http(self, *, bearer: bool = False, **more: Any) -> httpx.AsyncClient:
        """A browser without any cookie, or a tool with the user's token."""
        headers = {"Authorization": f"Bearer {self.token}"} if bearer else {}
        base_url = f"http://{self.service.address}"
        return httpx.AsyncClient(base_url=base_url, timeout=TIMEOUT_S, headers=headers, **more)

    async def ticket(self) -> str:
        body = {"environment_id": self.environment_id, "kind": "preview"}
        async with self.http(bearer=True) as http:
            answer = await http.post("/api/v1/ws/tickets", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["ticket"])

    @asynccontextmanager
    async def browser(self) -> AsyncIterator[httpx.AsyncClient]:
        """One that has opened the preview with a ticket and holds the cookie."""
        async with self.http() as http:
            answer = await http.get(f"{self.prefix}/", params={"ticket": await self.ticket()})
            assert answer.status_code == 303, answer.text
            yield http

    async def cookie(self) -> str:
        """As a header's value."""
        async with self.browser() as http:
            return "; ".join(f"{cookie.name}={cookie.value}" for cookie in http.cookies.jar)

    def socket(self, path: str = "/", *, prefix: str | None = None, **options: Any) -> connect:
        url = f"ws://{self.service.address}{prefix or self.prefix}{path}"
        return connect(url, proxy=None, **options)


async def said(socket: ClientConnection) -> dict[str, Any]:
    """The application's first message."""
    told: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), TIMEOUT_S))
    return told


def headers_of(told: dict[str, Any]) -> dict[str, str]:
    """What the application was sent."""
    return dict(map(tuple, told["headers"]))


@dataclass
class Street:
    """The service, the runtime's other half, and the two neighbours."""

    service: Service
    runtime: Driver
    alice: Owner
    bob: Owner


@asynccontextmanager
async def street_on(kind: str, backend: Servers, **changes: Any) -> AsyncIterator[Street]:
    async with sites(kind) as (ours, driver), running_service(backend, driver(), **changes) as service:
        workspaces = Workspaces(ours)
        try:
            async with (
                at_home(service, ours, workspaces, "alice") as alice,
                at_home(service, ours, workspaces, "bob") as bob,
            ):
                yield Street(service, ours, alice, bob)
        finally:
            await workspaces.remove_all()


@asynccontextmanager
async def at_home(service: Service, runtime: Driver, workspaces: Workspaces, name: str) -> AsyncIterator[Owner]:
    owner = Owner(service, new_id(), new_id(), new_id(), name)
    ref = WorkspaceRef(owner.environment_id, owner.user_id)
    await workspaces.start(make_spec(ref=ref))
    await service.environment(owner.user_id, environment_id=owner.environment_id)
    async with serving(runtime, ref, PORT, name):
        yield owner


@asynccontextmanager
async def serving(runtime: Driver, ref: WorkspaceRef, port: int, name: str) -> AsyncIterator[None]:
    """While the application runs there."""
    await Workspaces(runtime).run(ref, "cat > webapp.py", stdin=webapp.SOURCE.encode())
    argv = ["python3", "webapp.py", str(port), name]
    async with opened(await runtime.exec(ref, argv, tty=False)) as stream:
        await read_until(stream, b"ready")
        yield
