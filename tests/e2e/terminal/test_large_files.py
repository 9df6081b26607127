"""A large file up and down again. TRUST_FILE_MB: how large."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from tests.e2e.terminal.conftest import amount
from tests.support.memory import growth, in_use
from tests.support.phone import Phone
from tests.support.stack import LocalStack

_PIECE_BYTES = 1024 * 1024
_LOOK_EVERY_S = 0.5
# Buffers, what an allocator keeps, what the database caches of events meanwhile: far below what passes.
_ALLOWED_MIB = 16

log = logging.getLogger(__name__)


class Watch:
    """The most, in MiB, that each process of a stack has had beyond what it had at the beginning."""

    def __init__(self, stack: LocalStack) -> None:
        self.most: dict[str, int] = {}
        self._stack = stack
        self._before = in_use(stack)

    async def look(self) -> None:
        """Again and again, until it is cancelled."""
        while True:
            for name, mib in growth(self._before, in_use(self._stack)).items():
                self.most[name] = max(self.most.get(name, 0), mib)
            await asyncio.sleep(_LOOK_EVERY_S)


@asynccontextmanager
async def watched(stack: LocalStack) -> AsyncIterator[Watch]:
    """Looks at the stack for the length of the block."""
    watch = Watch(stack)
    looking = asyncio.create_task(watch.look())
    try:
        yield watch
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def pieces(count: int, digest: hashlib._Hash) -> AsyncIterator[bytes]:
    """Nothing that could be compressed, or be a hole in a file."""
    random = Random(13)
    for _ in range(count):
        piece = random.randbytes(_PIECE_BYTES)
        digest.update(piece)
        yield piece


async def test_a_file_goes_up_and_comes_down_through_little_memory(stack: LocalStack, admin: Phone) -> None:
    """As an administrator, whose plan allows files of that size."""
    environment_id = await admin.create(name="large-files", template="ubuntu")
    count = amount("FILE_MB", 200)
    address = f"/api/v1/environments/{environment_id}/files/large"
    sent, received = hashlib.sha256(), hashlib.sha256()
    try:
        # What the first transfer of a process loads is no matter of size.
        for _ in range(2):
            assert (await admin.http.put(address, content=b"small")).is_success
            assert (await admin.http.get(address)).content == b"small"
        async with watched(stack) as watch:
            stored = await admin.http.put(address, content=pieces(count, sent))
            assert stored.is_success, stored.text
            async with admin.http.stream("GET", address) as answer:
                assert answer.headers["content-length"] == str(count * _PIECE_BYTES)
                async for piece in answer.aiter_raw():
                    received.update(piece)
        log.info("%d MiB, and at most MiB more in %s", count, watch.most)
        assert received.hexdigest() == sent.hexdigest()
        in_workspace = await admin.run(environment_id, "sha256sum large")
        assert in_workspace == f"0|{sent.hexdigest()}  large"
        assert {"gateway", "terminal-1", "terminal-2", "envs", "nats"} <= set(watch.most)
        too_much = {name: mib for name, mib in watch.most.items() if mib > _ALLOWED_MIB}
        assert not too_much
    finally:
        await admin.http.delete(f"/api/v1/environments/{environment_id}")
