"""The reader on a real stream."""

from __future__ import annotations

import asyncio
import tracemalloc
from contextlib import aclosing
from typing import Any

import nats
import pytest

from libs.common.history import consumer, reader
from libs.common.history.errors import EventsUnavailableError
from libs.common.history.query import ALL_EVENTS, EventQuery
from libs.common.history.reader import StreamReader
from libs.common.history.recorded import Recorded
from libs.common.history.story import EventStream
from libs.common.messaging.streams import EVENTS_STREAM, ensure_streams
from libs.common.settings import CommonSettings
from tests.integration.history.conftest import STORY, Desk
from tests.support.servers import LocalServer
from tests.unit.history.makers import raw

_MANY = 10_000
_WAIT_S = 30.0


async def sequences(desk: Desk, subject: str = ALL_EVENTS, **options: Any) -> list[int]:
    reader = StreamReader(desk.js)
    return [item.stored_sequence async for item in reader.read(EVENTS_STREAM, subject, **options)]


async def fill(desk: Desk, count: int, size: int = 100) -> None:
    for begin in range(0, count, 500):
        acks = [
            await desk.js.publish_async(f"devpocket.env.e{number % 10}.created", b"x" * size, stream=EVENTS_STREAM)
            for number in range(begin, min(begin + 500, count))
        ]
        await asyncio.gather(*acks)


class TestRead:
    async def test_it_gives_what_was_stored(self, told: Desk) -> None:
        found = [item async for item in StreamReader(told.js).read(EVENTS_STREAM, ALL_EVENTS)]
        assert [(item.sequence, item.subject, item.payload) for item in found] == [
            (item.sequence, item.subject, item.payload) for item in STORY
        ]
        assert found[0].headers["Nats-Msg-Id"] == "event-1"

    async def test_ranges(self, told: Desk) -> None:
        assert await sequences(told, "devpocket.*.e2.>") == [10]
        assert await sequences(told, after_sequence=8) == [9, 10]
        assert await sequences(told, until_sequence=2) == [1, 2]
        assert await sequences(told, limit=3) == [1, 2, 3]
        assert await sequences(told, "devpocket.*.e9.>") == []

    async def test_a_reader_that_takes_its_time_is_forgotten_by_the_server_and_goes_on(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # How long it waits for a server that says nothing: each time for both.
        monkeypatch.setattr(reader, "_FETCH_WAIT_S", 1.5)
        monkeypatch.setattr(consumer, "_GRACE_S", 0.5)
        await fill(desk, 1_200)
        seen: list[int] = []
        async for item in StreamReader(desk.js).read(EVENTS_STREAM, ALL_EVENTS):
            seen.append(item.stored_sequence)
            if len(seen) in {1, 700}:
                (its_own,) = await desk.js.consumers_info(EVENTS_STREAM)
                await desk.js.delete_consumer(EVENTS_STREAM, its_own.name)
        assert seen == list(range(1, 1_201))

    async def test_it_leaves_no_consumer_behind(self, told: Desk) -> None:
        items = StreamReader(told.js).read(EVENTS_STREAM, ALL_EVENTS)
        async with aclosing(items):
            await anext(items)
            assert await told.consumers() == 1
        assert await told.consumers() == 0

    async def test_what_comes_meanwhile_does_not_count(self, told: Desk) -> None:
        seen = 0
        async for _ in StreamReader(told.js).read(EVENTS_STREAM, ALL_EVENTS):
            seen += 1
            await told.store(raw(b"more", 1))
        assert seen == len(STORY)

    async def test_many_take_little_memory(self, desk: Desk) -> None:
        await fill(desk, _MANY, size=2_000)
        progress: list[tuple[int, int]] = []
        tracemalloc.start()
        count = 0
        async for _ in StreamReader(desk.js).read(
            EVENTS_STREAM, ALL_EVENTS, progress=lambda done, total: progress.append((done, total))
        ):
            count += 1
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == _MANY
        # All of them together would be above 20 MB.
        assert peak < 8 << 20
        assert progress[-1] == (_MANY, _MANY)

    async def test_large_messages_come_too(self, desk: Desk) -> None:
        await fill(desk, 30, size=900_000)
        assert len(await sequences(desk)) == 30

    async def test_without_a_stream_it_says_so(self, laptop: Desk) -> None:
        with pytest.raises(EventsUnavailableError, match="no stream DEVPOCKET_EVENTS yet"):
            await sequences(laptop)

    async def test_a_server_that_goes_away_is_one_error(self, laptop: Desk, own_server: LocalServer) -> None:
        client = await nats.connect(laptop.url, allow_reconnect=False, connect_timeout=30, error_cb=_ignore)
        js = client.jetstream(timeout=_WAIT_S)
        await ensure_streams(js, CommonSettings(_env_file=None))
        desk = Desk(laptop.url, client)
        await fill(desk, 2_000)

        async def read_while_it_dies() -> None:
            items = StreamReader(js).read(EVENTS_STREAM, ALL_EVENTS)
            await anext(items)
            own_server.kill()
            async for _ in items:
                continue

        with pytest.raises(EventsUnavailableError, match="reading events failed"):
            await read_while_it_dies()
        await client.close()


class TestNewest:
    @pytest.mark.parametrize("limit", [1, 3, 100])
    async def test_the_end_of_a_short_stream(self, told: Desk, limit: int) -> None:
        found = await StreamReader(told.js).newest(EVENTS_STREAM, ALL_EVENTS, limit)
        assert [item.sequence for item in found] == list(range(1, 11))[-limit:]

    async def test_it_reads_no_more_than_it_must(self, desk: Desk) -> None:
        await fill(desk, 6_000)
        reader = StreamReader(desk.js)
        read: list[int] = []
        original = reader.read

        def counting(*arguments: object, **options: object) -> object:
            read.append(int(str(options["after_sequence"])))
            return original(*arguments, **options)  # type: ignore[arg-type]

        reader.read = counting  # type: ignore[assignment, method-assign]
        found = await reader.newest(EVENTS_STREAM, ALL_EVENTS, 5)
        assert [item.sequence for item in found] == [5996, 5997, 5998, 5999, 6000]
        assert read == [5_000]

    async def test_rare_ones_far_back_are_found(self, desk: Desk) -> None:
        await desk.store(raw(b"rare", 1, "devpocket.env.rare.created"))
        await fill(desk, 5_000)
        found = await StreamReader(desk.js).newest(EVENTS_STREAM, "devpocket.*.rare.>", 5)
        assert [item.sequence for item in found] == [1]

    async def test_of_nothing(self, desk: Desk) -> None:
        assert await StreamReader(desk.js).newest(EVENTS_STREAM, ALL_EVENTS, 5) == []


class TestPages:
    async def test_pages_are_the_whole(self, told: Desk) -> None:
        stream, after, found = EventStream(told.js), None, []
        while True:
            page = await stream.page(EventQuery("e1"), after=after, limit=2)
            found += [item.sequence for item in page.events]
            if page.next_after is None:
                break
            assert len(page.events) == 2
            after = page.next_after
        assert found == [1, 2, 3, 4, 5, 6, 7, 8, 9]
        assert await told.consumers() == 0


class TestFollow:
    async def test_each_event_once_over_a_restart_of_the_server(self, laptop: Desk, own_server: LocalServer) -> None:
        await ensure_streams(laptop.js, CommonSettings(_env_file=None))
        client = await nats.connect(laptop.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=_ignore)
        await laptop.store(raw(b"before", 1))
        notices: list[str] = []
        seen: asyncio.Queue[Recorded] = asyncio.Queue()

        async def follow() -> None:
            reader = StreamReader(client.jetstream(timeout=10))
            async for item in reader.follow(ALL_EVENTS, notice=notices.append, since=STORY[0].stored_at):
                seen.put_nowait(item)

        task = asyncio.create_task(follow())
        async with asyncio.timeout(_WAIT_S):
            assert (await seen.get()).payload == b"before"
            own_server.kill()
            own_server.start()
            other = await nats.connect(laptop.url)
            await other.jetstream(timeout=10).publish(STORY[0].subject, b"after", stream=EVENTS_STREAM)
            assert (await seen.get()).payload == b"after"
        assert notices == ["the event stream is away; waiting for it", "the event stream is back"]
        assert seen.empty()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await other.close()
        await client.close()

    async def test_only_what_comes_without_since(self, told: Desk) -> None:
        items = StreamReader(told.js).follow(ALL_EVENTS)
        async with aclosing(items), asyncio.timeout(_WAIT_S):
            first = asyncio.create_task(anext(items))
            while not await told.consumers():  # noqa: ASYNC110 - the server offers no event
                await asyncio.sleep(0.01)
            await told.store(raw(b"new", 1))
            assert (await first).payload == b"new"


async def _ignore(_error: Exception) -> None:
    """The server goes away on purpose."""
