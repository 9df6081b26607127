"""Following a log: many viewers, one stream; cut, slow, far behind, and with the runtime away."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from libs.common.contracts.identity import Plan
from libs.runtime.port import LogLine, RuntimeUnavailableError, WorkspaceNotFoundError, WorkspaceRef
from services.terminal.domain import CLOSINGS, Caller, CloseReason, Environment
from services.terminal.logs.feed import FeedLimits, LogFeeds
from services.terminal.logs.position import ORIGIN, Position
from services.terminal.service.logs import LogQuery, LogViewer
from tests.fakes.log_client import LogClient
from tests.fakes.log_source import ListedLog, TappedLogs

_BEGAN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
_ENVIRONMENT = Environment("env-1", "user-1", 1)
_CALLER = Caller("user-1", "login-1", Plan.PRO)
_QUICK = FeedLimits(again_seconds=0.01, linger_seconds=60.0, patience_seconds=0.05)
_FOLLOW = LogQuery(follow=True, tail=0)


class Log:
    """One environment's log, tapped, and who looks at it."""

    def __init__(self, limits: FeedLimits = _QUICK) -> None:
        self.listed = ListedLog()
        self.tapped = TappedLogs(self.listed)
        self.feeds = LogFeeds(self.tapped, limits)
        self._numbers = itertools.count()
        self._clock = 0

    def write(self, count: int = 1, text: str = "") -> None:
        """Lines of one moment, numbered through."""
        self._clock += 1
        moment = _BEGAN + timedelta(microseconds=self._clock)
        self.listed.write(*(LogLine(moment, "stdout", f"{next(self._numbers)}{text}") for _ in range(count)))

    @asynccontextmanager
    async def viewer(self, query: LogQuery = _FOLLOW, client: LogClient | None = None) -> AsyncIterator[LogClient]:
        client = client or LogClient()
        viewer = LogViewer(self.feeds, client, _ENVIRONMENT, _CALLER, query)
        running = asyncio.create_task(viewer.run())
        try:
            yield client
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    @asynccontextmanager
    async def following(self, query: LogQuery = _FOLLOW) -> AsyncIterator[LogClient]:
        """A viewer who is there already when the block begins."""
        async with self.viewer(query) as client:
            await self.tapped.until(lambda tapped: tapped.open == 1)
            yield client


def numbers(*spans: range) -> list[str]:
    return [str(number) for number in itertools.chain(*spans)]


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    log = Log()
    yield log
    await log.feeds.close()
    assert log.tapped.open == 0


class TestOneStream:
    async def test_many_viewers_share_it(self, log: Log) -> None:
        log.write(5)
        async with log.following() as first, log.viewer(LogQuery(follow=True, tail=2)) as second:
            await second.until(lambda: len(second.lines) == 2)
            log.write(3)
            for client in (first, second):
                await client.until(lambda: client.lines[-1:] == ["7"])  # noqa: B023
            assert first.lines == numbers(range(5, 8))
            assert second.lines == numbers(range(3, 8))
            assert [frame["offset"] for frame in first.frames] == [frame["offset"] for frame in second.frames[2:]]
        assert log.tapped.follows == 1

    async def test_it_stays_for_a_moment_after_the_last_one_left(self, log: Log) -> None:
        async with log.following() as first:
            log.write(2)
            await first.until(lambda: len(first.lines) == 2)
        log.write(2)
        async with log.viewer(LogQuery(follow=True, after=Position.parse(first.offset))) as again:
            await again.until(lambda: len(again.lines) == 2)
            assert again.lines == numbers(range(2, 4))
        assert log.tapped.follows == 1

    async def test_it_ends_when_nobody_comes_back(self) -> None:
        log = Log(replace(_QUICK, linger_seconds=0.01))
        async with log.following():
            pass
        await log.tapped.until(lambda tapped: tapped.open == 0)
        assert len(log.feeds) == 0

    async def test_who_comes_back_keeps_it(self) -> None:
        log = Log(replace(_QUICK, linger_seconds=0.0))
        with log.feeds.watching(_ENVIRONMENT.ref, ORIGIN):
            pass
        with log.feeds.watching(_ENVIRONMENT.ref, ORIGIN):
            await log.tapped.until(lambda tapped: tapped.open == 1)
            assert len(log.feeds) == 1
        await log.tapped.until(lambda tapped: tapped.open == 0)

    async def test_what_is_not_followed_goes_straight_to_the_runtime(self, log: Log) -> None:
        log.write(9)
        async with log.viewer(LogQuery(follow=False, tail=3)) as client:
            await client.until(lambda: client.code is not None)
        assert (client.lines, client.code) == (numbers(range(6, 9)), 1000)
        assert log.tapped.follows == 0

    async def test_one_that_breaks_goes_on_after_the_last_line(self, log: Log) -> None:
        async with log.following() as client:
            for error in (None, RuntimeUnavailableError("broken"), ValueError("broken")):
                before = len(client.lines)
                log.write(2)
                await client.until(lambda: len(client.lines) == before + 2)  # noqa: B023
                opened = log.tapped.follows
                await log.tapped.cut(error)
                log.write(2)
                await log.tapped.until(lambda tapped: tapped.follows > opened)  # noqa: B023
                await client.until(lambda: len(client.lines) >= before + 4)  # noqa: B023
            assert client.lines == numbers(range(12))
            assert {frame["type"] for frame in client.frames} == {"log"}

    async def test_lines_that_were_lost_while_it_was_broken_are_told(self) -> None:
        log = Log()
        async with log.following() as client:
            log.write(2)
            await client.until(lambda: len(client.lines) == 2)
            await log.tapped.cut()
            log.write(2)
            log.listed.rotate(4)
            log.write(1)
            await client.until(lambda: "4" in client.lines)
            gap, line = client.frames[2:]
            assert (gap["type"], gap["from"]) == ("gap", client.frames[1]["offset"])
            assert Position.parse(gap["to"]) == Position.parse(line["offset"]).before
        await log.feeds.close()


class BusyLog(ListedLog):
    """Whoever asks for its end is too late: a line was added meanwhile."""

    def logs(
        self, ref: WorkspaceRef, *, follow: bool = False, tail: int | None = None, since: datetime | None = None
    ) -> AsyncGenerator[LogLine]:
        if tail is not None:
            self.write(LogLine(_BEGAN + timedelta(days=1), "stdout", "meanwhile"))
        return super().logs(ref, follow=follow, tail=tail, since=since)


class TestResume:
    async def test_a_client_that_is_cut_at_random_moments_gets_every_line_once(self, log: Log) -> None:
        chance = random.Random(6)
        query, lines = LogQuery(follow=True, since=_BEGAN), 0
        seen: list[str] = []
        for _ in range(100):
            async with log.viewer(query) as client:
                for _ in range(chance.randint(0, 3)):
                    count = chance.randint(1, 6)
                    log.write(count)
                    lines += count
                    for _ in range(chance.randint(0, 9)):
                        await asyncio.sleep(0)
                if chance.random() < 0.2:
                    await log.tapped.cut()
                if chance.random() < 0.2:
                    await log.feeds.close()
            seen += client.lines
            if client.frames:
                query = LogQuery(follow=True, after=Position.parse(client.offset))
        async with log.viewer(replace(query, follow=False)) as client:
            await client.until(lambda: client.code is not None)
        assert seen + client.lines == numbers(range(lines))

    async def test_what_the_runtime_no_longer_has_is_a_gap(self, log: Log) -> None:
        log.write(3)
        async with log.following(LogQuery(follow=True, tail=3)) as client:
            await client.until(lambda: len(client.lines) == 3)
        await log.feeds.close()
        log.write(2)
        log.listed.rotate(4)
        log.write(1)
        for follow in (True, False):
            query = LogQuery(follow=follow, after=Position.parse(client.offset))
            async with log.viewer(query) as again:
                await again.until(lambda: "5" in again.lines)
            assert [frame["type"] for frame in again.frames] == ["gap", "log", "log"]
            assert again.frames[0]["from"] == client.offset

    @pytest.mark.parametrize("written", [0, 3])
    async def test_a_position_that_was_never_there_is_a_gap(self, log: Log, written: int) -> None:
        if written:
            log.write(written)
        late = Position.before_all_at(_BEGAN + timedelta(days=1)).next(_BEGAN)
        async with log.following(LogQuery(follow=True, after=late)) as client:
            log.write(1)
            await client.until(lambda: client.lines == [str(written)])
            assert client.frames[0]["type"] == "gap"
            assert client.frames[0]["from"] == str(late)

    @pytest.mark.parametrize("knows", ["position", "moment"])
    async def test_a_line_that_comes_while_there_is_nothing_new_is_not_passed_over(self, knows: str) -> None:
        busy = BusyLog([LogLine(_BEGAN, "stdout", "seen")])
        feeds = LogFeeds(busy, _QUICK)
        query = LogQuery(follow=True, since=_BEGAN + timedelta(seconds=1))
        if knows == "position":
            query = LogQuery(follow=True, after=Position.before_all_at(_BEGAN).next(_BEGAN))
        client = LogClient()
        running = asyncio.create_task(LogViewer(feeds, client, _ENVIRONMENT, _CALLER, query).run())
        await client.until(lambda: client.lines == ["meanwhile"])
        assert len(client.frames) == 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await feeds.close()

    async def test_who_waits_for_a_later_moment_shares_the_stream_too(self, log: Log) -> None:
        log.write(1)
        query = LogQuery(follow=True, since=_BEGAN + timedelta(microseconds=3))
        async with log.following(query) as later, log.viewer(LogQuery(follow=True, tail=1)) as now:
            await now.until(lambda: len(now.lines) == 1)
            for _ in range(3):
                log.write(1)
            await now.until(lambda: len(now.lines) == 4)
            await later.until(lambda: len(later.lines) == 2)
            assert (later.lines, now.lines) == (["2", "3"], ["0", "1", "2", "3"])
            assert {frame["type"] for frame in later.frames + now.frames} == {"log"}
        assert log.tapped.follows == 1


@pytest.fixture
async def narrow() -> AsyncIterator[Log]:
    """With room for some ten lines of 1,000 characters."""
    log = Log(replace(_QUICK, ring_bytes=16_000, window_bytes=4_000))
    yield log
    await log.feeds.close()


class TestSlowViewers:
    async def test_one_gets_a_gap_and_goes_on_while_the_others_miss_nothing(self, narrow: Log) -> None:
        narrow.write(1)
        query = LogQuery(follow=True, tail=1)
        async with narrow.following(query) as fast, narrow.viewer(query) as slow:
            await slow.until(lambda: len(slow.lines) == 1)
            slow.takes.clear()
            for _ in range(100):
                narrow.write(1, "x" * 1000)
            await fast.until(lambda: len(fast.lines) == 101)
            slow.takes.set()
            await slow.until(lambda: slow.frames[-1] == fast.frames[-1])
            kinds = [frame["type"] for frame in slow.frames]
            assert kinds.count("gap") == 1
            at = kinds.index("gap")
            assert slow.frames[at]["from"] == slow.frames[at - 1]["offset"]
            assert slow.frames[:at] + slow.frames[at + 1 :] == fast.frames[:at] + fast.frames[at - len(kinds) + 1 :]
            assert len(slow.frames) < 20
            assert {frame["type"] for frame in fast.frames} == {"log"}

    async def test_a_slow_one_alone_misses_nothing_and_nothing_is_read_ahead(self, narrow: Log) -> None:
        async with narrow.following() as slow:
            slow.takes.clear()
            for _ in range(100):
                narrow.write(1, "x" * 1000)
            # It waits no longer than is good for a log that may rotate.
            await narrow.tapped.until(lambda tapped: tapped.open == 0)
            slow.takes.set()
            await slow.until(lambda: len(slow.lines) == 100)
            assert {frame["type"] for frame in slow.frames} == {"log"}
        assert narrow.tapped.follows > 1

    async def test_a_rotation_meanwhile_is_told(self, narrow: Log) -> None:
        async with narrow.following() as slow:
            slow.takes.clear()
            for _ in range(50):
                narrow.write(1, "x" * 1000)
            await narrow.tapped.until(lambda tapped: tapped.open == 0)
            narrow.listed.rotate(45)
            slow.takes.set()
            await slow.until(lambda: slow.lines[-1:] == ["49" + "x" * 1000])
            assert [frame["type"] for frame in slow.frames].count("gap") == 1
            assert [line.rstrip("x") for line in slow.lines[-5:]] == numbers(range(45, 50))

    async def test_who_is_behind_the_feed_reads_on_from_the_runtime(self, narrow: Log) -> None:
        narrow.write(1)
        async with narrow.following(LogQuery(follow=True, tail=1)) as fast:
            await fast.until(lambda: len(fast.lines) == 1)
            behind = fast.offset
            for _ in range(100):
                narrow.write(1, "x" * 1000)
            await fast.until(lambda: len(fast.lines) == 101)
            async with narrow.viewer(LogQuery(follow=True, after=Position.parse(behind))) as late:
                await late.until(lambda: len(late.lines) == 100)
                narrow.write(1)
                await late.until(lambda: len(late.lines) == 101)
                assert late.frames == fast.frames[1:]

    async def test_who_joins_too_late_is_told_what_is_missing(self, narrow: Log) -> None:
        narrow.write(1)
        async with narrow.following(LogQuery(follow=True, tail=1)) as fast:
            for _ in range(100):
                narrow.write(1, "x" * 1000)
            await fast.until(lambda: len(fast.lines) == 101)
            behind = Position.parse(fast.frames[0]["offset"])
            assert not narrow.feeds.reaches(_ENVIRONMENT.ref, behind)
            with narrow.feeds.watching(_ENVIRONMENT.ref, behind) as late:
                gap, line = json.loads(late.next() or ""), json.loads(late.next() or "")
            assert (gap["type"], gap["from"]) == ("gap", str(behind))
            assert line in fast.frames
            assert Position.parse(gap["to"]) == Position.parse(line["offset"]).before

    async def test_a_stalled_one_is_noticed(self, narrow: Log) -> None:
        client = LogClient()
        client.takes.clear()
        narrow.write(1)
        viewer = LogViewer(narrow.feeds, client, _ENVIRONMENT, _CALLER, LogQuery(follow=True, tail=1))
        running = asyncio.create_task(viewer.run())
        async with asyncio.timeout(60):
            while viewer.stalled_for() < 0.02:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        client.takes.set()
        viewer.close(CLOSINGS[CloseReason.ENVIRONMENT_DELETED])
        await running
        assert (client.frames[-1]["code"], client.code) == ("environment_deleted", 4404)


class TestOutage:
    async def test_it_is_told_once_and_the_log_goes_on(self, log: Log) -> None:
        async with log.following() as client:
            log.tapped.away = RuntimeUnavailableError("no route to 10.0.0.1", reason="ClusterUnreachable")
            opened = log.tapped.follows
            await log.tapped.cut()
            await log.tapped.until(lambda tapped: tapped.follows >= opened + 5)
            (error,) = client.frames
            assert (error["type"], error["code"]) == ("error", "unavailable")
            assert "does not answer" in error["message"]
            assert "10.0.0.1" not in error["message"]
            log.tapped.away = None
            log.write(1)
            await client.until(lambda: client.lines == ["0"])
            assert client.code is None

    async def test_one_that_comes_during_it_is_told_too(self, log: Log) -> None:
        log.write(3)
        log.tapped.away = RuntimeUnavailableError("away")
        async with log.viewer(LogQuery(follow=True, tail=2)) as client:
            await log.tapped.until(lambda tapped: tapped.reads >= 5)
            assert [frame["type"] for frame in client.frames] == ["error"]
            log.tapped.away = None
            await client.until(lambda: client.lines == ["1", "2"])

    async def test_a_stream_that_says_nothing_because_its_machine_is_gone_is_noticed(self) -> None:
        log = Log(replace(_QUICK, quiet_seconds=0.01))
        async with log.following() as client:
            for told in (1, 2):
                log.tapped.away = RuntimeUnavailableError("away")
                await client.until(lambda: len(client.frames) == told)  # noqa: B023
                log.tapped.away = None
                looked = log.tapped.reads
                await log.tapped.until(lambda tapped: tapped.reads >= looked + 2)  # noqa: B023
            assert {frame["code"] for frame in client.frames} == {"unavailable"}
            assert log.tapped.follows == 1
        await log.feeds.close()

    async def test_one_that_gives_no_answer_is_told_too(self) -> None:
        log = Log(replace(_QUICK, quiet_seconds=0.01, answer_seconds=0.01))
        async with log.following() as client:
            log.tapped.hangs = True
            await client.until(lambda: len(client.frames) == 1)
            assert "cannot be reached" in client.frames[0]["message"]
        await log.feeds.close()

    async def test_without_follow_it_is_the_end(self, log: Log) -> None:
        log.tapped.away = RuntimeUnavailableError("away", reason="ClusterRemoved")
        async with log.viewer(LogQuery(follow=False, tail=2)) as client:
            await client.until(lambda: client.code is not None)
        assert (client.frames[0]["code"], client.code) == ("unavailable", 4503)
        assert "taken out of service" in client.frames[0]["message"]

    async def test_a_workspace_that_is_not_there_yet_is_no_outage(self, log: Log) -> None:
        log.tapped.away = WorkspaceNotFoundError("There is no such workspace.")
        async with log.viewer(LogQuery(follow=False, tail=2)) as client:
            await client.until(lambda: client.code is not None)
        assert (client.frames, client.code) == ([], 1000)
        async with log.viewer(LogQuery(follow=True, tail=2)) as client:
            await log.tapped.until(lambda tapped: tapped.reads >= 5)
            log.tapped.away = None
            log.write(1)
            await client.until(lambda: client.lines == ["0"])
            assert len(client.frames) == 1
