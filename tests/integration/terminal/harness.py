"""The terminal service behind a real server on a real socket, and a client that speaks its protocol."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
import uvicorn
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from libs.common.context import Cause
from libs.common.contracts.clusters import DEFAULT_CLUSTER
from libs.common.contracts.environments import DesiredState, EnvironmentStatus, Resources
from libs.common.contracts.events import (
    EnvironmentCreated,
    EnvironmentDeleteRequested,
    EnvironmentStatusChanged,
    Event,
    EventData,
    WorkspaceTemplate,
)
from libs.common.contracts.identity import Plan, Scope
from libs.common.contracts.users import UserApiKeyCreated, UserRegistered, UserSessionsRevoked, UserState
from libs.common.http.websocket import WebSocketProtocol
from libs.common.ids import new_id
from libs.common.messaging.streams import EVENTS_STREAM
from libs.common.security.api_keys import ApiKey
from services.terminal.main import create_app
from services.terminal.protocol import BINARY_SUBPROTOCOL
from services.terminal.sessions.session import TerminalSession
from services.terminal.settings import TerminalSettings
from tests.fakes.exec_runtime import HostExecRuntime
from tests.support.accounts import OUTDATED
from tests.support.app import eventually
from tests.support.servers import Servers
from tests.support.tokens import TestIssuer

TIMEOUT_S = 15.0
# One for all: replicas share their durable consumer, so they must share the read model that it feeds.
_DATABASE = f"test_{new_id()[-12:]}"


@dataclass
class Service:
    """One running replica."""

    app: FastAPI
    settings: TerminalSettings
    issuer: TestIssuer
    runtime: HostExecRuntime
    address: str

    @property
    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://{self.address}", timeout=TIMEOUT_S)

    async def publish(self, data: EventData, subject: str) -> None:
        event = Event.new(data, subject=subject, source="envs", cause=Cause())
        jetstream = self.app.state.platform.bus.jetstream
        await jetstream.publish(event.nats_subject, event.model_dump_json().encode(), stream=EVENTS_STREAM)

    async def environment(
        self,
        user_id: str,
        status: EnvironmentStatus = EnvironmentStatus.RUNNING,
        environment_id: str | None = None,
        cluster: str = DEFAULT_CLUSTER,
    ) -> str:
        """As envs tells of it: a wish, then a status; returns when the read model has both."""
        environment_id = environment_id or new_id()
        await self.publish(created(environment_id, user_id), environment_id)
        await self.status(environment_id, user_id, status, version=2, cluster=cluster)
        await self.caught_up()
        return environment_id

    async def status(
        self,
        environment_id: str,
        user_id: str,
        status: EnvironmentStatus,
        *,
        version: int,
        generation: int = 1,
        cluster: str = DEFAULT_CLUSTER,
    ) -> None:
        data = EnvironmentStatusChanged(
            environment_id=environment_id,
            user_id=user_id,
            status=status,
            previous=EnvironmentStatus.CREATING,
            generation=generation,
            version=version,
            cluster=cluster,
        )
        await self.publish(data, environment_id)

    async def delete(self, environment_id: str, user_id: str, *, version: int = 9) -> None:
        wish = created(environment_id, user_id).model_dump() | {"desired": DesiredState.DELETED, "version": version}
        await self.publish(EnvironmentDeleteRequested.model_validate(wish), environment_id)

    async def api_key(self, user_id: str, *scopes: Scope) -> ApiKey:
        """As auth tells of it: a user, then a key; returns when the read model has both."""
        key = ApiKey.new()
        await self.publish(user_state(UserRegistered, user_id), user_id)
        data = UserApiKeyCreated(
            **OUTDATED, user_id=user_id, key_id=key.id, name="ci", scopes=list(scopes), secret_hash=key.secret_hash
        )
        await self.publish(data, user_id)
        await self.caught_up("users")
        return key

    async def revoke(self, user_id: str, *session_ids: str) -> None:
        data = UserSessionsRevoked(user_id=user_id, session_ids=list(session_ids), reason="deactivated")
        await self.publish(data, user_id)

    async def caught_up(self, purpose: str = "environments") -> None:
        """Until this read model holds all that was published."""
        jetstream = self.app.state.platform.bus.jetstream
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                consumer = await jetstream.consumer_info(EVENTS_STREAM, f"terminal-{purpose}")
                # That nothing is pending may also mean that it has not heard of the newest yet.
                newest = await jetstream.get_last_msg(EVENTS_STREAM, consumer.config.filter_subject)
                if consumer.num_ack_pending == 0 and consumer.delivered.stream_seq >= newest.seq:
                    return
                await asyncio.sleep(0.01)

    def url(self, path: str, **query: Any) -> str:
        return f"ws://{self.address}/api/v1/ws/{path}?{urlencode(query)}"

    @asynccontextmanager
    async def shell(
        self,
        environment_id: str,
        token: str,
        *,
        binary: bool = False,
        lazy: bool = False,
        **query: Any,
    ) -> AsyncIterator[Shell]:
        """A client on a shell. A `lazy` one takes no more from the network than it is asked for."""
        url = self.url(f"terminal/{environment_id}", token=token, **query)
        subprotocols = [Subprotocol(BINARY_SUBPROTOCOL)] if binary else None
        connecting = connect(
            url,
            subprotocols=subprotocols,
            proxy=None,
            max_size=None,
            max_queue=1 if lazy else 16,
            sock=await self._small_socket() if lazy else None,
            close_timeout=0.5 if lazy else 10,
        )
        async with connecting as connection:
            shell = Shell(connection, binary=binary)
            await shell.until(lambda: shell.session_id != "")
            yield shell

    async def _small_socket(self) -> socket.socket:
        client = socket.socket()
        client.setblocking(False)
        # Else the kernel takes megabytes on behalf of a client that takes nothing.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = self.address.split(":")
        await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
        return client

    async def refusal(self, url: str, **headers: str) -> httpx.Response:
        """The HTTP answer to a handshake that must fail."""
        answer = await self.knock(url, **headers)
        assert answer is not None, "the handshake was accepted"
        return answer

    async def knock(self, url: str, **headers: str) -> httpx.Response | None:
        """The HTTP answer to a handshake that fails, None to one that does not."""
        try:
            async with connect(url, proxy=None, additional_headers=headers):
                return None
        except InvalidStatus as error:
            answer = error.response
            return httpx.Response(
                answer.status_code, headers=list(answer.headers.raw_items()), content=bytes(answer.body or b"")
            )


async def left_alone(service: Service, session_id: str) -> TerminalSession:
    """A session of this replica, once nobody is connected to it any more."""
    session: TerminalSession = service.app.state.terminal.sessions._sessions[session_id]

    async def is_so() -> bool:
        return not session.attachments

    await eventually(is_so)
    return session


class Shell:
    """A client: keeps what it was told, and the offset it would resume with."""

    def __init__(self, socket: ClientConnection, *, binary: bool = False) -> None:
        self.socket = socket
        self.binary = binary
        self.session_id = ""
        self.started_at = -1
        self.offset = -1
        self.output = bytearray()
        self.frames: list[dict[str, Any]] = []

    async def receive(self) -> None:
        """Take one frame. Raises ConnectionClosed."""
        message = await asyncio.wait_for(self.socket.recv(), TIMEOUT_S)
        if isinstance(message, bytes):
            self.output += message
            self.offset += len(message)
            return
        frame = json.loads(message)
        self.frames.append(frame)
        if frame["type"] == "ready":
            self.session_id, self.started_at, self.offset = frame["session_id"], frame["offset"], frame["offset"]
        elif frame["type"] == "output":
            data = frame["data"].encode()
            self.output += data
            assert self.offset + len(data) == frame["offset"] or "\ufffd" in frame["data"]
            self.offset = frame["offset"]
        elif frame["type"] == "gap":
            assert frame["from"] == self.offset
            self.offset = frame["to"]

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not done():
                await self.receive()

    async def expect(self, text: str) -> None:
        """Output with `text` after what was expected before."""
        wanted, looked_at = text.encode(), 0

        def found() -> bool:
            nonlocal looked_at
            start, looked_at = max(looked_at - len(wanted), 0), len(self.output)
            return self.output.find(wanted, start) >= 0

        try:
            await self.until(found)
        except (TimeoutError, ConnectionClosed) as error:
            raise AssertionError(f"no {text!r} in {bytes(self.output[-2000:])!r}, {self.frames[-3:]}") from error
        del self.output[: self.output.index(wanted) + len(wanted)]

    async def frame(self, kind: str) -> dict[str, Any]:
        """The next frame of this type, among those not looked at yet."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found.extend(frame for frame in self.frames if frame["type"] == kind)
            return bool(found)

        await self.until(look)
        self.frames.remove(found[0])
        return found[0]

    async def send(self, **frame: Any) -> None:
        await self.socket.send(json.dumps(frame))

    async def type(self, text: str) -> None:
        await self.send(type="input", data=text)

    async def run(self, command: str, expected: str) -> None:
        """Type a command and wait for what it writes; `expected` must not be part of the echo."""
        await self.type(command + "\n")
        await self.expect(expected)

    async def closed(self) -> int:
        """Read to the end; the close code."""
        with suppress(ConnectionClosed):
            async with asyncio.timeout(TIMEOUT_S):
                while True:
                    await self.receive()
        return self.socket.close_code or 0


def user_state(kind: type[UserState], user_id: str, *, version: int = 1, **changes: Any) -> UserState:
    state = {"plan": Plan.PRO, "is_active": True, "is_verified": True, **changes}
    return kind(user_id=user_id, username=f"u-{user_id}", version=version, **state)


def created(environment_id: str, user_id: str) -> EnvironmentCreated:
    return EnvironmentCreated(
        environment_id=environment_id,
        user_id=user_id,
        name="dev",
        desired=DesiredState.RUNNING,
        generation=1,
        version=1,
        spec=WorkspaceTemplate(
            template="python", image="python:3", resources=Resources(cpu="500m", memory="1Gi", storage="5Gi")
        ),
    )


def terminal_settings(backend: Servers, **changes: Any) -> TerminalSettings:
    values: dict[str, Any] = {
        "_env_file": None,
        "mongodb_url": backend.mongodb_url,
        "redis_url": backend.redis_url,
        "nats_url": backend.nats_url,
        "database_name": _DATABASE,
        "secret_key": "test-secret-key-0123456789-0123456789",
        "rate_limit_global": "",
        "rate_limit_auth": "",
        "log_level": "WARNING",
        "allowed_origins": "https://app.example",
        "terminal_upkeep_seconds": 0.1,
        # The other replicas are in this process, and so as busy as whoever asks them.
        "terminal_owner_seconds": TIMEOUT_S,
        # The host's shells have nobody to hold them.
        "terminal_hold_shells": False,
        **changes,
    }
    return TerminalSettings(**values)


@asynccontextmanager
async def running_service(
    backend: Servers, runtime: HostExecRuntime | None = None, **changes: Any
) -> AsyncIterator[Service]:
    """One replica with the settings given, ready. `runtime`: the driver of the cluster `default`."""
    settings = terminal_settings(backend, **changes)
    issuer, runtime = TestIssuer(settings), runtime or HostExecRuntime()
    app = create_app(settings, keys=issuer, runtime=runtime)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http="httptools",
        ws=WebSocketProtocol,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(30):
            await app_started(server, serving)
            await app.state.platform.health.wait_started()
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield Service(app, settings, issuer, runtime, f"{host}:{port}")
    finally:
        server.should_exit = True
        await serving


async def app_started(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    while not server.started:
        if serving.done():
            serving.result()
        await asyncio.sleep(0.01)
