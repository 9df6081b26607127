"""Logs over a WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from libs.common.contracts.environments import EnvironmentStatus
from libs.common.contracts.users import UserUpdated
from libs.common.ids import new_id
from libs.runtime.port import DriverError, LogLine, RuntimeUnavailableError, WorkspaceRef
from tests.fakes.exec_runtime import HostExecRuntime
from tests.integration.terminal.harness import TIMEOUT_S, Service, running_service, user_state
from tests.integration.terminal.test_handshake import problem
from tests.support.app import eventually
from tests.support.servers import Servers

_BEGAN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class CountedRuntime(HostExecRuntime):
    """Counts who asks for and who follows which environment's log; `logs_away` is what reading one raises."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.follows: list[str] = []
        self.logs_away: dict[str, DriverError] = {}

    async def logs(
        self,
        ref: WorkspaceRef,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: datetime | None = None,
    ) -> AsyncIterator[LogLine]:
        """See `HostExecRuntime.logs`."""
        self.asked.append(ref.environment_id)
        if ref.environment_id in self.logs_away:
            raise self.logs_away[ref.environment_id]
        if follow:
            self.follows.append(ref.environment_id)
        async for line in super().logs(ref, follow=follow, tail=tail, since=since):
            yield line


@pytest.fixture(scope="module")
async def runtime() -> CountedRuntime:
    return CountedRuntime()


@pytest.fixture(scope="module")
async def service(backend: Servers, runtime: CountedRuntime) -> AsyncIterator[Service]:
    """A replica whose runtime counts."""
    async with running_service(backend, runtime) as service:
        yield service


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


async def received(socket: ClientConnection) -> dict[str, Any]:
    """The next frame."""
    async with asyncio.timeout(TIMEOUT_S):
        frame: dict[str, Any] = json.loads(await socket.recv())
    return frame


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
            ({"since": "2026-11-23T12:03:18Z", "tail": 5}, range(198, 200)),
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
            "offset": "1795435200000000000-1",
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

    async def test_a_workspace_that_is_not_made_yet_is_waited_for(
        self, service: Service, runtime: CountedRuntime, user_id: str
    ) -> None:
        environment_id = await service.environment(user_id, EnvironmentStatus.CREATING)
        service.runtime.missing.add(environment_id)
        url = service.url(f"logs/{environment_id}", token=service.issuer.token(user_id))
        async with connect(url, proxy=None) as socket:

            async def was_asked() -> bool:
                return environment_id in runtime.asked

            await eventually(was_asked)
            service.runtime.missing.discard(environment_id)
            await service.runtime.log(environment_id, line(1))
            async with asyncio.timeout(TIMEOUT_S):
                assert json.loads(await socket.recv())["message"] == "line 1"

    async def test_viewers_share_one_stream_and_see_a_stopped_environment(
        self, service: Service, runtime: CountedRuntime, user_id: str, environment_id: str
    ) -> None:
        url = service.url(f"logs/{environment_id}", token=service.issuer.token(user_id), tail=1)
        async with connect(url, proxy=None) as first, connect(url, proxy=None) as second:
            for socket in (first, second):
                assert (await received(socket))["message"] == "line 199"
            await service.status(environment_id, user_id, EnvironmentStatus.STOPPED, version=3)
            await service.caught_up()
            await runtime.log(environment_id, line(200, "system"))
            last = [await received(socket) for socket in (first, second)]
        assert last[0] == last[1]
        assert last[0]["message"] == "line 200"
        assert runtime.follows.count(environment_id) == 1

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
            _, code = await frames(socket)
        assert code == 4401

    async def test_it_ends_with_the_user(self, service: Service, user_id: str, environment_id: str) -> None:
        url = service.url(f"logs/{environment_id}", token=service.issuer.token(user_id), tail=0)
        async with connect(url, proxy=None) as socket:
            await service.publish(user_state(UserUpdated, user_id, version=2, is_active=False), user_id)
            found, code = await frames(socket)
        assert (found[-1]["code"], code) == ("session_revoked", 4401)


class TestResume:
    async def test_it_goes_on_behind_the_line_seen_last(
        self, service: Service, runtime: CountedRuntime, user_id: str, environment_id: str
    ) -> None:
        # Lines that a program writes at once have one time stamp.
        for _ in range(5):
            await runtime.log(environment_id, line(200))
        query = {"token": service.issuer.token(user_id), "tail": 8}
        async with connect(service.url(f"logs/{environment_id}", **query), proxy=None) as socket:
            seen = [await received(socket) for _ in range(8)]
        for number, frame in enumerate(seen, 1):
            url = service.url(f"logs/{environment_id}", **query, offset=frame["offset"], follow="false")
            async with connect(url, proxy=None) as socket:
                assert await frames(socket) == (seen[number:], 1000)
        url = service.url(f"logs/{environment_id}", **query, offset=seen[-2]["offset"])
        async with connect(url, proxy=None) as socket:
            assert await received(socket) == seen[-1]
            await runtime.log(environment_id, line(201))
            assert (await received(socket))["message"] == "line 201"

    async def test_odd_text_arrives_as_it_was_written(
        self, service: Service, runtime: CountedRuntime, user_id: str, environment_id: str
    ) -> None:
        text = 'q" b\\ \x00\x1b[31m \x7f \u2028 \N{SNAKE} \ufffd }{'
        await runtime.log(environment_id, LogLine(line(200).timestamp, "stdout", text))
        url = service.url(f"logs/{environment_id}", token=service.issuer.token(user_id), tail=1)
        async with connect(url, proxy=None) as socket:
            assert (await received(socket))["message"] == text

    async def test_what_is_not_there_any_more_is_a_gap(
        self, service: Service, user_id: str, environment_id: str
    ) -> None:
        url = service.url(
            f"logs/{environment_id}",
            token=service.issuer.token(user_id),
            offset="1795435199000000000-3",
            follow="false",
        )
        async with connect(url, proxy=None) as socket:
            found, code = await frames(socket)
        gap = {"type": "gap", "from": "1795435199000000000-3", "to": "1795435200000000000-0"}
        assert (found[0], len(found), code) == (gap, 201, 1000)

    @pytest.mark.parametrize("offset", ["", "17", "-1-1", "1-1-1", "x-1", "1" * 20 + "-1"])
    async def test_an_offset_that_is_none_is_refused(
        self, service: Service, user_id: str, environment_id: str, offset: str
    ) -> None:
        url = service.url(f"logs/{environment_id}", token=service.issuer.token(user_id), offset=offset)
        answer = await service.refusal(url)
        assert problem(answer) == (422, "validation_error")
        assert answer.json()["errors"][0]["field"] == "query.offset"


class TestOutage:
    async def test_a_runtime_that_is_away_is_told_in_a_sentence(
        self, service: Service, runtime: CountedRuntime, user_id: str, environment_id: str
    ) -> None:
        runtime.logs_away[environment_id] = RuntimeUnavailableError("dial 10.1.2.3", reason="ClusterUnreachable")
        query = {"token": service.issuer.token(user_id), "tail": 1}
        async with connect(service.url(f"logs/{environment_id}", **query, follow="false"), proxy=None) as socket:
            (error,), code = await frames(socket)
        assert (error["type"], error["code"], code) == ("error", "unavailable", 4503)
        assert error["message"].endswith("the cluster your environment runs on does not answer right now")
        async with connect(service.url(f"logs/{environment_id}", **query), proxy=None) as socket:
            assert await received(socket) == error
            del runtime.logs_away[environment_id]
            assert (await received(socket))["message"] == "line 199"
