"""The real hasher, at the lowest cost."""

from __future__ import annotations

import asyncio
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
        hasher = BcryptHasher(cost=9, workers=1)
        hashed = await hasher.hash("Aa1aaaaa")

        async def fastest(against: str | None) -> float:
            times = []
            for _ in range(5):
                started = time.perf_counter()
                assert not await hasher.verify("Bb2bbbbb", against)
                times.append(time.perf_counter() - started)
            return min(times)

        known, unknown = await fastest(hashed), await fastest(None)
        hasher.close()
        assert unknown > known / 2

    async def test_a_flood_is_refused_rather_than_queued(self) -> None:
        hasher = BcryptHasher(cost=6, workers=1)
        answers = await asyncio.gather(*(hasher.verify("x", None) for _ in range(200)), return_exceptions=True)
        hasher.close()
        assert answers.count(False) == 64
        assert sum(isinstance(answer, UnavailableError) for answer in answers) == 136
