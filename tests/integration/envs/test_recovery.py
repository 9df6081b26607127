"""The service outlives its servers, and its clients hear of its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest

from libs.common.contracts.events import RuntimeRunning
from libs.common.contracts.identity import Plan
from libs.common.ids import new_id
from services.envs.main import create_app
from services.envs.ports import Gap, StoredEvent
from services.envs.settings import EnvsSettings
from tests.integration.envs.conftest import API, World
from tests.support.app import running_app
from tests.support.servers import LocalServer, Servers, free_port, nats_server
from tests.support.tokens import TestIssuer

_WAIT_S = 30.0


@pytest.fixture
def own_nats(tmp_path: Path) -> Any:
    server = nats_server(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def own_world(own_nats: LocalServer, make_settings: Callable[..., Any]) -> AsyncIterator[World]:
    """A service on a NATS server that a test may kill."""
    settings = make_settings(EnvsSettings, nats_url=f"nats://127.0.0.1:{own_nats.port}")
    issuer = TestIssuer(settings)
    app = create_app(settings, keys=issuer)
    bus = await nats.connect(
        settings.nats_url.get_secret_value(), max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_ignore
    )
    async with running_app(app) as http:
        yield World(app, http, issuer, bus)
    await bus.close()


async def _ignore(_: Exception) -> None:
    """The server is killed on purpose."""


async def restarted(server: LocalServer, world: World) -> None:
    """Kill the server and start it; returns once our connection is a new one: what the old one took is lost."""
    before = world.bus.stats["reconnects"]
    server.kill()
    server.start()

    async def is_new() -> bool:
        return world.bus.is_connected and world.bus.stats["reconnects"] > before

    await world.until(is_new)


class TestNatsRestart:
    async def test_writes_are_told_and_live_events_go_on_without_repeats(
        self, own_world: World, own_nats: LocalServer
    ) -> None:
        world = own_world
        stream = await world.app.state.live.open(user_id=world.user_id, session_id="s", sees_all=False, after=None)
        first = await world.create("before")
        await _next(stream)
        own_nats.kill()
        second = await world.create("meanwhile")
        own_nats.start()
        event = await _next(stream)
        assert (event.type, event.body["data"]["environment_id"]) == ("devpocket.env.created.v1", second["id"])
        await world.until(lambda: _connected(world))
        await world.report(first["id"], RuntimeRunning, generation=1)
        await world.until_status(first["id"], "running")
        assert [(await _next(stream)).type for _ in range(2)] == [
            "devpocket.runtime.running.v1",
            "devpocket.env.status_changed.v1",
        ]


async def _connected(world: World) -> bool:
    return bool(world.bus.is_connected)


async def _next(stream: Any) -> StoredEvent:
    event = await stream.next(_WAIT_S)
    assert event is not None
    assert not isinstance(event, Gap)
    assert isinstance(event, StoredEvent)
    return event


class TestSigterm:
    async def test_a_real_server_ends_at_once_though_a_client_listens(
        self, clean_backend: Servers, settings: EnvsSettings, tmp_path: Path
    ) -> None:
        port = free_port()
        process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [sys.executable, "-c", _SERVER, str(port)],
            env={
                **os.environ,
                "MONGODB_URL": clean_backend.mongodb_url,
                "REDIS_URL": clean_backend.redis_url,
                "NATS_URL": clean_backend.nats_url,
                "DATABASE_NAME": settings.database_name,
                "RATE_LIMIT_GLOBAL": "",
            },
            stdout=subprocess.PIPE,
            stderr=(tmp_path / "log").open("w"),
        )
        assert process.stdout is not None
        token = (await asyncio.to_thread(process.stdout.readline)).decode().strip()
        try:
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=_WAIT_S) as http:
                await self._ready(http)
                async with http.stream("GET", "/api/v1/events", headers=headers) as response:
                    assert response.status_code == 200
                    process.send_signal(signal.SIGTERM)
                    async for line in response.aiter_lines():
                        assert not line.startswith("data:")
            assert await asyncio.to_thread(process.wait, 15) in {0, -signal.SIGTERM}
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)

    async def _ready(self, http: httpx.AsyncClient) -> None:
        async with asyncio.timeout(_WAIT_S):
            while True:
                try:
                    if (await http.get("/health/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)


_SERVER = """
import sys
from libs.common.http.server import make_server
from services.envs.main import create_app
from services.envs.settings import EnvsSettings
from tests.support.tokens import TestIssuer

def make():
    settings = EnvsSettings(_env_file=None)
    issuer = TestIssuer(settings)
    print(issuer.token(), flush=True)
    return create_app(settings, keys=issuer)

make_server("__main__:make", host="127.0.0.1", port=int(sys.argv[1]), drain_s=20, supervised=None).run()
"""


class TestIds:
    async def test_a_foreign_event_in_between_is_no_gap(self, own_world: World) -> None:
        """Events of users are in the stream too: not shown, but counted as covered."""
        world = own_world
        created = await world.create()
        await world.stored(created["id"], 1)
        await world.user_state(new_id(), Plan.PRO, 1)
        stream = await world.app.state.live.open(user_id=world.user_id, session_id="s", sees_all=False, after=0)
        assert (await _next(stream)).body["data"]["environment_id"] == created["id"]
        assert (await world.call("GET", f"{API}/{created['id']}"))["status"] == "creating"
