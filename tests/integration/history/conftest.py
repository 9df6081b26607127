"""A real stream with a story in it, and the command line against it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client as NatsClient
from nats.js import JetStreamContext
from typer.testing import CliRunner

from libs.cli.main import app
from libs.common.history.recorded import Recorded
from libs.common.messaging.streams import EVENTS_STREAM, ensure_streams
from libs.common.settings import CommonSettings
from tests.support.servers import LocalServer, Servers, nats_server
from tests.unit.history.makers import bad_night, raw, stored, wish

_DEVPOCKET = str(Path(sys.executable).with_name("devpocket"))
_TIMEOUT_S = 110.0
_PIPE = asyncio.subprocess.PIPE
GARBAGE = [
    raw(b"\xff not json", 7),
    raw(b'{"id": 5}', 8, "devpocket.env.e1.updated"),
    raw(b"", 9, "devpocket.runtime.e1.running"),
]
OTHERS = [
    raw(
        stored(wish(), 10).payload.replace(b'"e1"', b'"e2"').replace(b"event-10", b"other"),
        10,
        "devpocket.env.e2.created",
    )
]
STORY = [*bad_night(), *GARBAGE, *OTHERS]


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Its standard output, which must be JSON."""
        assert self.code == 0, self.stderr
        return json.loads(self.stdout)


class Desk:
    """One NATS server and the tools on it."""

    def __init__(self, url: str, client: NatsClient) -> None:
        self.url = url
        self.client = client
        self.js: JetStreamContext = client.jetstream(timeout=30)

    async def run(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        """`devpocket events ARGUMENTS`, in a thread of ours: a process takes a second to load what is loaded here.

        Raises what the command does not catch.
        """
        runner = CliRunner(env=self._settings)
        result = await asyncio.to_thread(runner.invoke, app, ["events", *arguments], stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    async def run_process(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        """The same as people start it."""
        process = await asyncio.create_subprocess_exec(
            _DEVPOCKET, "events", *arguments,
            env={**os.environ, **self._settings}, stdin=_PIPE, stdout=_PIPE, stderr=_PIPE,
        )  # fmt: skip
        async with asyncio.timeout(_TIMEOUT_S):
            stdout, stderr = await process.communicate(stdin)
        return Outcome(process.returncode or 0, stdout.decode(), stderr.decode())

    @property
    def _settings(self) -> dict[str, str]:
        return {"NATS_URL": self.url, "MONGODB_URL": "mongodb://unused"}

    async def store(self, *items: Recorded) -> None:
        """Publish as the services do."""
        for item in items:
            headers = dict(item.headers) | ({"Nats-Msg-Id": item.id} if item.id else {})
            await self.js.publish(item.subject, item.payload, stream=EVENTS_STREAM, headers=headers or None)

    async def consumers(self, stream: str = EVENTS_STREAM) -> int:
        """How many consumers the stream has."""
        return (await self.js.stream_info(stream)).state.consumer_count


@pytest.fixture
async def desk(clean_backend: Servers) -> AsyncIterator[Desk]:
    """Empty streams on the shared server."""
    client = await nats.connect(clean_backend.nats_url)
    desk = Desk(clean_backend.nats_url, client)
    await ensure_streams(desk.js, CommonSettings(_env_file=None))
    yield desk
    await client.close()


@pytest.fixture
async def told(desk: Desk) -> Desk:
    """With a story, garbage and somebody else's environment."""
    await desk.store(*STORY)
    return desk


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[LocalServer]:
    """A server of this test only, without any stream."""
    server = nats_server(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def laptop(own_server: LocalServer) -> AsyncIterator[Desk]:
    """An empty machine."""
    url = f"nats://127.0.0.1:{own_server.port}"
    client = await nats.connect(url)
    yield Desk(url, client)
    await client.close()
