"""Logs over a WebSocket."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from libs.common.contracts.environments import EnvironmentStatus
from libs.common.ids import new_id
from libs.runtime.port import LogLine
from tests.integration.terminal.harness import TIMEOUT_S, Service

_BEGAN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def line(number: int, stream: Literal["stdout", "stderr", "system"] = "stdout") -> LogLine:
    return LogLine(_BEGAN + timedelta(seconds=number), stream, f"line {number}")


@pytest.fixture
async def user_id() -> str:
    return new_id()


@pytest.fixture
async def environment_id(service: Service, user_id: str) -> str:
    """With 200 lines in its log."""
    environment_id = await service.environment(user_id)
    for number in range(200):
        await service.runtime.log(environment_id, line(number))
    return environment_id


async def frames(socket: ClientConnection) -> tuple[list[dict[str, Any]], int | None]:
    """All until the server closes, and its code."""
    found = []
    async with asyncio.timeout(TIMEOUT_S):
        try:
            while True:
                found.append(json.loads(await socket.recv()))
        except ConnectionClosed:
            return found, socket.close_code


class TestHistory:
    @pytest.mark.parametrize(
        ("query", "numbers"),
        [
            ({}, range(100, 200)),
            ({"tail": 3}, range(197, 200)),
            ({"tail": 0}, range(0)),
            ({"tail": 10_000}, range(200)),
            ({"since": "2026-11-23T12:03:15Z"}, range(195, 200)),
            ({"since": "2026-11-23T14:03:15+02:00"}, range(195, 200)),
            ({"since": "2026-11-23T12:03:00Z", "tail": 2}, range(198, 200)),
        ],
        ids=str,
    )
    async def test_lines_come_oldest_first_and_then_the_end(
        self, service: Service, user_id: str, environment_id: str, query: dict[str, object], numbers: range
    ) -> None:
        url = service.url(f"logs/{environment_id}", token=service.issuer.token(user_id), follow="false", **query)
        async with connect(url, proxy=None) as socket:
            found, code = await frames(socket)
        assert [frame["message"] for frame in found] == [f"line {number}" for number in numbers]
        assert code == 1000

    async def test_a_plus_that_was_not_escaped_is_understood(
        self, service: Service, user_id: str, environment_id: str
    ) -> None:
        url = service.url(f"logs/{environment_id}", token=service.issuer.token(user_id), follow="false")
        async with connect(f"{url}&since=2026-11-23T14:03:19+02:00", proxy=None) as socket:
            found, _ = await frames(socket)
        assert [frame["message"] for frame in found] == ["line 199"]

    async def test_a_frame_says_when_from_where_and_how_bad(self, service: Service, user_id: str) -> None:
        environment_id = await service.environment(user_id, EnvironmentStatus.ERROR)
        for number, stream in enumerate(("stdout", "stderr", "system")):
            await service.runtime.log(environment_id, line(number, stream))  # type: ignore[arg-type]
        url = service.url(f"logs/{environment_id}", token=service.issuer.token(user_id), follow="false")
        async with connect(url, proxy=None) as socket:
            found, _ = await frames(socket)
        assert found[0] == {
            "type": "log",
            "timestamp": "2026-11-23T12:00:00Z",
            "level": "info",
            "message": "line 0",
            "stream": "stdout",
        }
        assert [(frame["stream"], frame["level"]) for frame in found[1:]] == [("stderr", "error"), ("system", "info")]


class TestFollow:
    async def test_new_lines_come_as_they_are_written_also_after_a_restart(
        self, service: Service, user_id: str, environment_id: str
    ) -> None:
        url = service.url(f"logs/{environment_id}", token=service.issuer.token(user_id), tail=1)
        async with connect(url, proxy=None) as socket:
            assert json.loads(await socket.recv())["message"] == "line 199"
            await service.status(environment_id, user_id, EnvironmentStatus.RESTARTING, version=3, generation=2)
            await service.status(environment_id, user_id, EnvironmentStatus.RUNNING, version=4, generation=2)
            await service.runtime.log(environment_id, line(200))
            async with asyncio.timeout(TIMEOUT_S):
                assert json.loads(await socket.recv())["message"] == "line 200"
                await socket.send('{"type":"ping"}')
                assert json.loads(await socket.recv()) == {"type": "pong"}
                await socket.send('{"type":"dance"}')
                assert json.loads(await socket.recv())["code"] == "unknown_type"

    async def test_a_workspace_that_is_not_made_yet_is_waited_for(self, service: Service, user_id: str) -> None:
        environment_id = await service.environment(user_id, EnvironmentStatus.CREATING)
        service.runtime.missing.add(environment_id)
        url = service.url(f"logs/{environment_id}", token=service.issuer.token(user_id))
        async with connect(url, proxy=None) as socket:
            await asyncio.sleep(0.1)
            service.runtime.missing.discard(environment_id)
            await service.runtime.log(environment_id, line(1))
            async with asyncio.timeout(TIMEOUT_S):
                assert json.loads(await socket.recv())["message"] == "line 1"

    async def test_it_ends_with_the_environment(self, service: Service, user_id: str, environment_id: str) -> None:
        url = service.url(f"logs/{environment_id}", token=service.issuer.token(user_id), tail=0)
        async with connect(url, proxy=None) as socket:
            await service.delete(environment_id, user_id)
            found, code = await frames(socket)
        assert found[-1]["code"] == "environment_deleted"
        assert code == 4404

    async def test_it_ends_with_the_login(self, service: Service, user_id: str, environment_id: str) -> None:
        token = service.issuer.token(user_id)
        principal = await service.app.state.platform.tokens.verify(token)
        async with connect(service.url(f"logs/{environment_id}", token=token, tail=0), proxy=None) as socket:
            service.app.state.platform.revocations.add([principal.session_id])
            async with asyncio.timeout(1):
                _, code = await frames(socket)
        assert code == 4401
