"""What one client of the live feed gets, without a stream behind it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from libs.common.clock import utc_now
from services.envs.api.events import HEARTBEAT_S, frames
from services.envs.events.clients import Clients, ClientStream
from services.envs.ports import Gap, LiveStream, StoredEvent, StreamClosedError

_ROOM = 256


def event(sequence: int, user_id: str = "u") -> StoredEvent:
    return StoredEvent(sequence, user_id, "devpocket.env.created.v1", {"sequence": sequence})


class Client:
    """A stream and what became of it."""

    def __init__(self, *, after: int = 0, sees_all: bool = False) -> None:
        self.forgotten: list[ClientStream] = []
        self.stream = ClientStream(self.forgotten.append, "u", "s", sees_all=sees_all, after=after)

    async def got(self) -> list[int | Gap]:
        """Everything that waits."""
        found: list[int | Gap] = []
        while (item := await self.stream.next(0)) is not None:
            found.append(item if isinstance(item, Gap) else item.sequence)
        return found


class TestClientStream:
    async def test_gets_its_own_events_and_an_admin_all(self) -> None:
        mine, admin = Client(), Client(sees_all=True)
        for client in (mine, admin):
            client.stream.offer(event(1))
            client.stream.offer(event(2, "somebody else"))
        assert await mine.got() == [1]
        assert await admin.got() == [1, 2]

    async def test_what_it_has_seen_elsewhere_does_not_come_twice(self) -> None:
        client = Client(after=7)
        for sequence in range(5, 10):
            client.stream.offer(event(sequence))
        assert await client.got() == [8, 9]

    async def test_what_it_missed_comes_before_what_came_meanwhile(self) -> None:
        client = Client(after=3)
        client.stream.offer(event(4))
        client.stream.catch_up([event(2), event(3)])
        assert await client.got() == [2, 3, 4]

    async def test_after_a_gap_only_what_comes_later(self) -> None:
        client = Client(after=100)
        client.stream.offer(event(101))
        client.stream.begin_again(100, 5)
        for sequence in (4, 5, 6):
            client.stream.offer(event(sequence))
        assert await client.got() == [Gap(100, 5), 6]

    async def test_one_that_does_not_keep_up_is_closed_and_holds_nothing(self) -> None:
        client = Client()
        for sequence in range(1, _ROOM + 1):
            client.stream.offer(event(sequence))
        assert client.forgotten == []
        client.stream.offer(event(_ROOM + 1))
        assert client.forgotten == [client.stream]
        with pytest.raises(StreamClosedError):
            await client.stream.next(0)

    async def test_what_it_missed_takes_no_room_from_what_is_to_come(self) -> None:
        client = Client(after=_ROOM)
        client.stream.catch_up([event(sequence) for sequence in range(1, _ROOM + 1)])
        for sequence in range(_ROOM + 1, 2 * _ROOM + 1):
            client.stream.offer(event(sequence))
        assert await client.got() == list(range(1, 2 * _ROOM + 1))


class Silent:
    """A LiveStream on which nothing happens; remembers for how long it was listened to."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.closed = False

    async def next(self, timeout_s: float) -> StoredEvent | Gap | None:
        """Nothing, at once."""
        self.waits.append(timeout_s)
        return None

    def close(self) -> None:
        """Remembered."""
        self.closed = True


class TestFrames:
    async def test_silence_is_broken_by_a_comment_and_ends_with_the_token(self) -> None:
        stream = Silent()
        listening: LiveStream = stream
        text = frames(listening, utc_now() + timedelta(hours=1))
        assert (await anext(text)).startswith("retry: ")
        assert await anext(text) == ": still here\n\n"
        assert stream.waits == [HEARTBEAT_S]
        await text.aclose()  # type: ignore[attr-defined]
        assert stream.closed

    async def test_a_token_that_is_over_ends_it(self) -> None:
        stream = Silent()
        assert len([text async for text in frames(stream, utc_now())]) == 1
        assert stream.waits == []
        assert stream.closed


class TestClients:
    async def test_an_event_is_offered_to_those_who_see_it_and_to_nobody_else(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clients = Clients()
        asked: list[ClientStream] = []
        monkeypatch.setattr(ClientStream, "offer", lambda stream, _: asked.append(stream))
        others = [ClientStream(clients.discard, f"user{n}", "s", sees_all=False, after=0) for n in range(20)]
        owner, admin = (
            ClientStream(clients.discard, "u", "s", sees_all=sees_all, after=0) for sees_all in (False, True)
        )
        for stream in (*others, owner, admin):
            clients.add(stream)
        clients.offer(event(1))
        assert sorted(map(id, asked)) == sorted(map(id, (owner, admin)))
        asked.clear()
        clients.offer(StoredEvent(2, None, "devpocket.env.created.v1", {}))
        assert asked == [admin]

    async def test_who_is_closed_is_forgotten(self) -> None:
        clients = Clients()
        streams = [ClientStream(clients.discard, "u", "s", sees_all=sees_all, after=0) for sees_all in (False, True)]
        for stream in streams:
            clients.add(stream)
        assert clients.count("u") == 2
        for stream in clients:
            stream.close()
            stream.close()
        assert (clients.count("u"), list(clients)) == (0, [])
