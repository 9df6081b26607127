"""Coming back to the live events: exactly what was missed, from any replica, or a gap that says so."""

from __future__ import annotations

import asyncio
import shutil
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest

from libs.common.context import Cause
from libs.common.contracts.events import Event, RuntimeProvisioning
from libs.common.errors import UnavailableError
from libs.common.messaging.streams import EVENTS_STREAM
from libs.common.messaging.subscriptions import IMPORTED_SEQUENCE
from services.envs.events.live import LiveFeed
from services.envs.main import create_app
from services.envs.ports import Gap, StreamClosedError
from services.envs.settings import EnvsSettings
from tests.integration.envs.conftest import World
from tests.integration.envs.test_events_api import EventSource, events_of, watching
from tests.integration.envs.test_recovery import own_nats as own_nats  # noqa: PLC0414 - a fixture
from tests.integration.envs.test_recovery import own_world as own_world  # noqa: PLC0414 - a fixture
from tests.integration.envs.test_recovery import restarted
from tests.support.app import running_app
from tests.support.servers import LocalServer

_WAIT_S = 30.0


async def say(world: World, message: str, *, imported: bool = False) -> int:
    """An event about the user's environment; its place in the stream."""
    data = RuntimeProvisioning(
        environment_id="e1", user_id=world.user_id, generation=1, runtime="local", message=message
    )
    event = Event.new(data, subject="e1", source="orchestrator", cause=Cause())
    headers = {"Nats-Msg-Id": event.id, **({IMPORTED_SEQUENCE: "7"} if imported else {})}
    payload = event.model_dump_json().encode()
    return (await world.js.publish(event.nats_subject, payload, stream=EVENTS_STREAM, headers=headers)).seq


async def said(source: EventSource, count: int) -> list[tuple[int, str]]:
    """Places and messages of the next events."""
    found = [await source.frame() for _ in range(count)]
    return [(frame.id, frame.data["data"].get("message", frame.event)) for frame in found]


async def opened(world: World, after: int | None, feed: LiveFeed | None = None) -> Any:
    """A stream of the user's, without HTTP."""
    feed = feed or world.app.state.live
    return await feed.open(user_id=world.user_id, session_id="s", sees_all=False, after=after)


async def heard(stream: Any) -> tuple[int, str] | Gap:
    """The next thing on a stream."""
    item = await stream.next(_WAIT_S)
    assert item is not None
    return item if isinstance(item, Gap) else (item.sequence, item.body["data"]["message"])


async def caught_up(world: World, feed: LiveFeed, sequence: int) -> None:
    """Until the replica has seen this event."""

    async def seen() -> bool:
        return feed._last >= sequence

    await world.until(seen)


@pytest.fixture
async def replicas(world: World, settings: EnvsSettings) -> AsyncIterator[tuple[str, str]]:
    """Two replicas of the service, on the same servers."""
    other = create_app(settings, keys=world.issuer)
    async with running_app(other), events_of(world.app) as one, events_of(other) as two:
        yield one, two


@pytest.fixture
async def second(world: World, settings: EnvsSettings) -> AsyncIterator[LiveFeed]:
    """The live feed of another replica."""
    other = create_app(settings, keys=world.issuer)
    async with running_app(other):
        yield other.state.live


class TestOnTwoReplicas:
    async def test_each_event_comes_once_whichever_replica_answers(
        self, world: World, replicas: tuple[str, str]
    ) -> None:
        first = await say(world, "0")
        last = first
        messages: list[str] = []
        for turn in range(12):
            for _ in range(3):
                await say(world, f"{len(messages) + 1}")
                async with watching(replicas[turn % 2], world.headers, after=last) as events:
                    ((last, message),) = await said(events, 1)
                    messages.append(message)
        assert messages == [str(number) for number in range(1, 37)]
        assert last == first + 36

    async def test_a_replica_that_lags_behind_delivers_what_comes_after(self, world: World, second: LiveFeed) -> None:
        first = await say(world, "first")
        await caught_up(world, second, first)
        # As if it had missed a message: it hears nothing until it has noticed, and it looks when we say so.
        assert second._task is not None
        second._task.cancel()
        second._lost_one = True
        seen = await say(world, "seen on the other replica")
        stream = await opened(world, seen, second)
        assert second._last < seen
        second._task = asyncio.create_task(second._keep_following())
        later = await say(world, "later")
        assert await heard(stream) == (later, "later")

    async def test_a_place_that_no_replica_has_seen_is_a_gap(self, world: World) -> None:
        last = await say(world, "before")
        await caught_up(world, world.app.state.live, last)
        stream = await opened(world, 10_000)
        assert await heard(stream) == Gap(10_000, last)
        later = await say(world, "later")
        assert await heard(stream) == (later, "later")


class TestLongAgo:
    async def test_what_memory_no_longer_holds_comes_from_the_stream(self, world: World) -> None:
        feed = world.app.state.live
        feed._ring = deque(maxlen=2)
        places = [await say(world, str(number)) for number in range(8)]
        await caught_up(world, feed, places[-1])
        assert feed._covered_after >= places[4]
        stream = await opened(world, places[0])
        live = await say(world, "live")
        expected = [(place, str(number)) for number, place in enumerate(places)][1:]
        assert [await heard(stream) for _ in range(8)] == [*expected, (live, "live")]

    async def test_others_events_are_not_read_out(self, world: World) -> None:
        world.app.state.live._ring = deque(maxlen=1)
        first = await say(world, "first")
        user_id, world.user_id = world.user_id, "somebody-else"
        await say(world, "not yours")
        world.user_id = user_id
        mine = await say(world, "yours")
        await caught_up(world, world.app.state.live, mine)
        stream = await opened(world, first)
        assert await heard(stream) == (mine, "yours")

    async def test_too_much_to_read_is_a_gap(self, world: World) -> None:
        feed = world.app.state.live
        feed._ring, feed._most_scanned = deque(maxlen=1), 2
        places = [await say(world, str(number)) for number in range(4)]
        await caught_up(world, feed, places[-1])
        stream = await opened(world, places[0])
        assert await heard(stream) == Gap(places[0], places[-1])
        later = await say(world, "later")
        assert await heard(stream) == (later, "later")

    async def test_over_http_a_gap_is_an_event(self, world: World) -> None:
        feed = world.app.state.live
        feed._ring, feed._most_scanned = deque(maxlen=1), 1
        places = [await say(world, str(number)) for number in range(3)]
        await caught_up(world, feed, places[-1])
        async with events_of(world.app) as url, watching(url, world.headers, after=places[0]) as events:
            gap = await events.frame()
        assert (gap.event, gap.id) == ("gap", places[-1])
        assert gap.data["data"] == {"seen": places[0], "resumes_after": places[-1]}


class TestImported:
    async def test_history_from_elsewhere_is_no_news(self, world: World) -> None:
        first = await say(world, "first")
        stream = await opened(world, first)
        await say(world, "imported", imported=True)
        news = await say(world, "news")
        assert await heard(stream) == (news, "news")

    async def test_nor_is_it_read_out(self, world: World) -> None:
        world.app.state.live._ring = deque(maxlen=1)
        first = await say(world, "first")
        await say(world, "imported", imported=True)
        places = [await say(world, str(number)) for number in range(2)]
        await caught_up(world, world.app.state.live, places[-1])
        stream = await opened(world, first)
        assert [await heard(stream) for _ in range(2)] == [(places[0], "0"), (places[1], "1")]


class TestSlowClients:
    async def test_one_is_closed_and_comes_back_to_the_rest(self, world: World) -> None:
        slow, quick = await opened(world, None), await opened(world, None)
        places = []
        for number in range(300):
            places.append(await say(world, str(number)))
            assert await heard(quick) == (places[-1], str(number))
        with pytest.raises(StreamClosedError):
            await slow.next(0)
        again = await opened(world, places[99])
        assert [(await heard(again))[0] for _ in range(200)] == places[100:]  # type: ignore[index]


class TestServersRestart:
    async def test_a_client_that_comes_back_after_a_restart_misses_nothing(
        self, own_world: World, own_nats: LocalServer
    ) -> None:
        first, second = await say(own_world, "first"), await say(own_world, "second")
        await restarted(own_nats, own_world)
        third = await say(own_world, "third")
        stream = await opened(own_world, first)
        assert [await heard(stream) for _ in range(2)] == [(second, "second"), (third, "third")]

    async def test_a_stream_made_anew_is_a_gap_and_goes_on(self, own_world: World, own_nats: LocalServer) -> None:
        stream = await opened(own_world, None)
        for number in range(3):
            await say(own_world, str(number))
        before = [await heard(stream) for _ in range(3)]
        own_nats.kill()
        shutil.rmtree(own_nats.argv[-1])
        own_nats.start()
        gap = await heard(stream)
        assert gap == Gap(before[-1][0], 0)  # type: ignore[index]
        assert await heard_first(own_world, stream) == (1, "anew")
        back = await opened(own_world, before[-1][0])  # type: ignore[index]
        assert isinstance(await heard(back), Gap)


async def test_before_the_service_has_started_it_says_so(settings: EnvsSettings) -> None:
    feed = create_app(settings).state.live
    with pytest.raises(UnavailableError):
        await feed.open(user_id="u", session_id="s", sees_all=False, after=None)


async def say_when_it_works(world: World, message: str) -> int:
    """Once the connection and the stream are back."""
    place = 0

    async def worked() -> bool:
        nonlocal place
        try:
            place = await say(world, message)
        except Exception:
            return False
        return True

    await world.until(worked)
    return place


async def heard_first(world: World, stream: Any) -> tuple[int, str] | Gap:
    """The first event of a new stream."""
    await say_when_it_works(world, "anew")
    return await heard(stream)
