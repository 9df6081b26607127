"""bcrypt, off the event loop and out of its way."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import bcrypt

from libs.common.errors import UnavailableError

# With one worker at cost 12 the last of them waits 14 s; who comes later would not wait for the answer anyway.
_MAX_WAITING = 64
_RETRY_AFTER_S = 10
_HASH_CHARS = 31
# A third of the event loop's share of a core that both want, all of a core that nobody else wants. With more, sign-ins
# would hardly get on beside other programs that are busy; the event loop would not be noticeably quicker.
_NICENESS = 5

T = TypeVar("T")


class BcryptHasher:
    """Hashes `workers` passwords at a time, at most 64 wait or are hashed; more are refused with UnavailableError.

    In threads, because bcrypt lets go of the interpreter lock while it works: another process would do nothing better,
    but would take 30 MB, start slowly in the middle of a storm and get the passwords through a pipe. Where workers take
    all cores, the event loop would have to wait for its turn; so they are of low priority. On Linux a thread has a
    priority of its own, elsewhere they have that of the process.
    """

    def __init__(self, *, cost: int, workers: int) -> None:
        self._cost = cost
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="bcrypt", initializer=_step_back)
        self._waiting = 0
        # Takes as long to check as a real one, and nothing matches it.
        self._nobody = bcrypt.gensalt(cost) + b"." * _HASH_CHARS

    async def hash(self, password: str) -> str:
        """A salted hash. Raises UnavailableError when too many are waiting."""
        return (await self._run(self._hash, password)).decode()

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Whether they belong together; without a hash False, after the same time. Raises UnavailableError likewise."""
        matches = await self._run(self._verify, password, hashed.encode() if hashed is not None else self._nobody)
        return matches and hashed is not None

    def close(self) -> None:
        """Drop what waits."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _hash(self, password: str) -> bytes:
        return bcrypt.hashpw(_digest(password), bcrypt.gensalt(self._cost))

    @staticmethod
    def _verify(password: str, hashed: bytes) -> bool:
        return bcrypt.checkpw(_digest(password), hashed)

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        if self._waiting >= _MAX_WAITING:
            raise UnavailableError(
                "Too many people are signing in right now, please try again in a moment",
                headers={"Retry-After": str(_RETRY_AFTER_S)},
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
        finally:
            self._waiting -= 1


def _step_back() -> None:
    if sys.platform == "linux":
        # A sandbox may forbid the call; hashing at full priority is better than none.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _digest(password: str) -> bytes:
    """44 bytes without NUL: bcrypt reads no more than 72 bytes, so a long password would be cut or refused."""
    return base64.b64encode(hashlib.sha256(password.encode()).digest())
