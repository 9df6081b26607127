"""The real hasher, at the lowest cost."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from libs.common.errors import UnavailableError
from services.auth.passwords import BcryptHasher


@pytest.fixture
def hasher() -> Iterator[BcryptHasher]:
    hasher = BcryptHasher(cost=4, workers=2)
    yield hasher
    hasher.close()


class TestBcryptHasher:
    async def test_every_character_counts(self, hasher: BcryptHasher) -> None:
        """bcrypt alone would read the first 72 bytes, or stop at a NUL."""
        for base in ("Aa1" + "x" * 97, "Aa1\x00" + "y" * 20, "Aa1" + "ü" * 50):
            hashed = await hasher.hash(base)
            assert await hasher.verify(base, hashed)
            assert not await hasher.verify(base[:-1] + "!", hashed)

    async def test_salted(self, hasher: BcryptHasher) -> None:
        assert await hasher.hash("Aa1aaaaa") != await hasher.hash("Aa1aaaaa")

    async def test_without_a_hash_nothing_matches_and_it_takes_as_long(self) -> None:
        hasher = BcryptHasher(cost=8, workers=1)
        hashed = await hasher.hash("Aa1aaaaa")

        # By what the processor does: what it does for others as well is nobody's to promise.
        async def fastest(against: str | None) -> float:
            times = []
            for _ in range(5):
                started = time.process_time()
                assert not await hasher.verify("Bb2bbbbb", against)
                times.append(time.process_time() - started)
            return min(times)

        known, unknown = await fastest(hashed), await fastest(None)
        hasher.close()
        assert unknown > known / 2

    async def test_a_flood_is_refused_rather_than_queued(self) -> None:
        hasher = BcryptHasher(cost=4, workers=1)
        answers = await asyncio.gather(*(hasher.verify("x", None) for _ in range(200)), return_exceptions=True)
        hasher.close()
        assert answers.count(False) == 64
        refused = [answer for answer in answers if isinstance(answer, UnavailableError)]
        assert len(refused) == 136
        assert {refusal.headers["Retry-After"] for refusal in refused} == {"10"}
        assert refused[0].message == "Too many people are signing in right now, please try again in a moment"

    async def test_who_hangs_up_makes_room(self) -> None:
        hasher = BcryptHasher(cost=4, workers=1)
        waiting = [asyncio.create_task(hasher.verify("x", None)) for _ in range(64)]
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError):
            await hasher.verify("x", None)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not await hasher.verify("x", None)
        hasher.close()


class TestPriority:
    @pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
    async def test_hashing_threads_step_back_and_the_event_loop_does_not(self, hasher: BcryptHasher) -> None:
        before = _niceness(threading.main_thread())
        others = set(threading.enumerate())
        await asyncio.gather(*(hasher.hash("Aa1aaaaa") for _ in range(4)))
        hashing = [thread for thread in set(threading.enumerate()) - others if thread.name.startswith("bcrypt")]
        assert hashing
        assert {_niceness(thread) for thread in hashing} == {max(before, 5)}
        assert _niceness(threading.main_thread()) == before

    async def test_where_that_is_forbidden_they_hash_all_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def forbidden(*_: int) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "setpriority", forbidden)
        hasher = BcryptHasher(cost=4, workers=1)
        assert await hasher.verify("Aa1aaaaa", await hasher.hash("Aa1aaaaa"))
        hasher.close()


def _niceness(thread: threading.Thread) -> int:
    assert thread.native_id is not None
    return os.getpriority(os.PRIO_PROCESS, thread.native_id)
