"""The story of an environment and live events, on a real stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from libs.common.contracts.events import RuntimeRunning, RuntimeStopped
from libs.common.contracts.identity import Plan
from libs.common.contracts.users import UserSessionsRevoked
from services.envs.events import live
from tests.integration.envs.conftest import API, World
from tests.support.app import served

_WAIT_S = 30.0


@dataclass(frozen=True)
class Frame:
    """One Server-Sent Event."""

    id: int
    event: str
    data: dict[str, Any]


class EventSource:
    """Reads Server-Sent Events."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def block(self) -> list[str]:
        """The lines up to the next empty one. Raises StopAsyncIteration at the end of the stream."""
        lines: list[str] = []
        async with asyncio.timeout(_WAIT_S):
            while line := await anext(self._lines):
                lines.append(line)
        return lines

    async def frame(self) -> Frame:
        """The next event."""
        while True:
            fields = dict(line.split(": ", 1) for line in await self.block() if not line.startswith(":"))
            if "event" in fields:
                return Frame(int(fields["id"]), fields["event"], json.loads(fields["data"]))

    async def until(self, event: str, **data: Any) -> Frame:
        """The first event of this type with these data."""
        while True:
            frame = await self.frame()
            if frame.event == event and data.items() <= frame.data["data"].items():
                return frame

    async def ended(self) -> bool:
        """Reads to the end of the stream."""
        try:
            while True:
                await self.block()
        except (StopAsyncIteration, httpx.RemoteProtocolError):
            return True


@asynccontextmanager
async def events_of(app: FastAPI) -> AsyncIterator[str]:
    """Where a real server of the app tells live events; its clients are sent away at the end."""
    async with served(app, ws="none") as url:
        try:
            yield f"{url}/api/v1/events"
        finally:
            app.state.live.close_all()


@pytest.fixture
async def url(world: World) -> AsyncIterator[str]:
    """Where live events are."""
    async with events_of(world.app) as url:
        yield url


@asynccontextmanager
async def watching(url: str, headers: dict[str, str], after: int | None = None) -> AsyncIterator[EventSource]:
    if after is not None:
        headers = {**headers, "Last-Event-ID": str(after)}
    timeout = httpx.Timeout(_WAIT_S)
    async with httpx.AsyncClient(timeout=timeout) as http, http.stream("GET", url, headers=headers) as response:
        assert response.status_code == 200
        yield EventSource(response)


class TestStory:
    async def test_is_in_order_from_all_services_without_secrets(self, world: World) -> None:
        environment_id = await world.running(environment_variables={"A": "b"})
        other = await world.running("other")
        await world.stored(environment_id, 3)
        found = await world.call("GET", f"{API}/{environment_id}/events")
        assert [event["type"] for event in found["events"]] == [
            "devpocket.env.created.v1",
            "devpocket.runtime.running.v1",
            "devpocket.env.status_changed.v1",
        ]
        assert found["next_cursor"] is None
        first = found["events"][0]
        assert first.keys() == {
            "sequence", "id", "type", "source", "time", "actor", "correlation_id", "causation_id", "data",
        }  # fmt: skip
        assert first["source"] == "envs"
        assert first["actor"] == world.user_id
        assert "sealed" not in json.dumps(found)
        assert other not in json.dumps(found)

    async def test_pages_with_a_cursor(self, world: World) -> None:
        environment_id = await world.running()
        for generation, command, report, status in (
            (2, "stop", RuntimeStopped, "stopped"),
            (3, "start", RuntimeRunning, "running"),
        ):
            await world.call("POST", f"{API}/{environment_id}/{command}")
            await world.report(environment_id, report, generation=generation)
            await world.until_status(environment_id, status)
        await world.stored(environment_id, 11)
        whole = await world.call("GET", f"{API}/{environment_id}/events")
        paged: list[Any] = []
        cursor = ""
        while True:
            page = await world.call("GET", f"{API}/{environment_id}/events?limit=4{cursor}")
            paged += page["events"]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert paged == whole["events"]
        assert len(paged) == 11
        sequences = [event["sequence"] for event in paged]
        assert sequences == sorted(set(sequences))

    async def test_leaves_no_consumer_behind(self, world: World) -> None:
        environment_id = await world.running()
        before = await self._consumers(world)
        for _ in range(3):
            await world.call("GET", f"{API}/{environment_id}/events")
        assert await self._consumers(world) == before

    @pytest.mark.parametrize("query", ["limit=0", "limit=501", "cursor=abc", "cursor=LTE"])
    async def test_bad_queries_are_422(self, world: World, query: str) -> None:
        await world.call("GET", f"{API}/{(await world.create())['id']}/events?{query}", 422)

    async def _consumers(self, world: World) -> set[str]:
        return {info.name for info in await world.js.consumers_info("DEVPOCKET_EVENTS")}


class TestLive:
    async def test_shows_status_changes_of_own_environments_only(self, world: World, url: str) -> None:
        async with watching(url, world.headers) as events:
            assert events.response.headers["content-type"].startswith("text/event-stream")
            assert events.response.headers["x-accel-buffering"] == "no"
            stranger = await world.create(headers=world.issuer.headers())
            environment_id = await world.running(environment_variables={"A": "b"})
            frames = [await events.frame()]
            while frames[-1].data["data"].get("status") != "running":
                frames.append(await events.frame())
        assert frames[-1].event == "devpocket.env.status_changed.v1"
        assert {frame.data["data"]["environment_id"] for frame in frames} == {environment_id}
        assert stranger["id"] != environment_id
        assert "sealed" not in repr(frames)
        assert [frame.id for frame in frames] == [frame.data["sequence"] for frame in frames]

    async def test_an_admin_sees_all(self, world: World, url: str) -> None:
        async with watching(url, world.issuer.headers(plan=Plan.ADMIN)) as events:
            environment_id = (await world.create())["id"]
            await events.until("devpocket.env.created.v1", environment_id=environment_id)

    async def test_nobody_is_401(self, url: str) -> None:
        async with httpx.AsyncClient() as http:
            assert (await http.get(url)).status_code == 401

    async def test_last_event_id_delivers_exactly_what_was_missed(self, world: World, url: str) -> None:
        async with watching(url, world.headers) as events:
            environment_id = (await world.create())["id"]
            created = await events.until("devpocket.env.created.v1")
        await world.report(environment_id, RuntimeRunning, generation=1)
        await world.until_status(environment_id, "running")
        await world.stored(environment_id, 3)
        async with watching(url, world.headers, after=created.id) as events:
            assert (await events.frame()).event == "devpocket.runtime.running.v1"
            assert (await events.frame()).data["data"]["status"] == "running"
            await world.call("POST", f"{API}/{environment_id}/stop")
            assert (await events.frame()).event == "devpocket.env.stop_requested.v1"

    async def test_ends_when_the_session_ends(self, world: World, url: str) -> None:
        token = world.issuer.token(world.user_id)
        session_id = (await world.app.state.platform.tokens.verify(token)).session_id
        async with watching(url, {"Authorization": f"Bearer {token}"}) as events:
            revoked = UserSessionsRevoked(user_id=world.user_id, session_ids=[session_id], reason="logout")
            await world.publish(revoked, world.user_id, source="auth")
            assert await events.ended()

    async def test_ends_with_the_token(self, world: World, url: str) -> None:
        async with watching(url, world.issuer.headers(life_s=3)) as events:
            assert await events.ended()

    async def test_ends_with_the_service(self, world: World, url: str) -> None:
        async with watching(url, world.headers) as events:
            world.app.state.live.close_all()
            assert await events.ended()

    async def test_too_many_per_user_are_429(self, world: World, url: str) -> None:
        feed = world.app.state.live
        for _ in range(live.MAX_STREAMS_PER_USER):
            await feed.open(user_id=world.user_id, session_id="s", sees_all=False, after=None)
        async with httpx.AsyncClient() as http:
            answer = await http.get(url, headers=world.headers)
            assert (answer.status_code, answer.json()["code"]) == (429, "too_many_streams")
            feed.close_session("s")
        async with watching(url, world.headers) as events:
            assert (await events.block())[0].startswith("retry:")
