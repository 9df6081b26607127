"""Between fetching and handling: what comes first about an aggregate is handled first, and nobody waits for others.

FastStream fetches a batch when the one before is taken in. Taking in is quick, unless as much is at work as one replica
may hold: that is the back-pressure.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from nats.aio.msg import Msg

from libs.common.tasks import end_tasks

# Messages taken in and not yet finished. Bounds memory and what a crash delays by the ack wait. Measured on the
# embedded database: 64 writers at once get half of what 4 to 16 get done.
MAX_AT_WORK = 16
_EXTENSIONS_PER_ACK_WAIT = 3

log = structlog.get_logger(__name__)

Work = Callable[[Msg], Awaitable[None]]


def _ignore(_message: Msg) -> None:
    """Nobody wants to know."""


class Intake:
    """One consumer's messages at work: a chain for each key, all chains at once."""

    def __init__(
        self, work: Work, key_of: Callable[[Msg], str], *, ack_wait_s: float, on_taken: Callable[[Msg], None] = _ignore
    ) -> None:
        """`work` sees to the acknowledgement and raises nothing; until it returns the ack wait is extended. `on_taken`
        hears of each message from when on that holds."""
        self._work = work
        self._key_of = key_of
        self._extend_every_s = ack_wait_s / _EXTENSIONS_PER_ACK_WAIT
        self._room = asyncio.Semaphore(MAX_AT_WORK)
        self._chains: dict[str, deque[tuple[Msg, _Extension]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_taken = on_taken
        self._unfinished: list[Msg] = []

    async def take(self, message: Msg) -> None:
        """Returns at once, or when there is room."""
        await self._room.acquire()
        self._on_taken(message)
        key = self._key_of(message)
        item = (message, _Extension(message, self._extend_every_s))
        chain = self._chains.get(key)
        if chain is not None:
            chain.append(item)
            return
        self._chains[key] = deque((item,))
        task = asyncio.create_task(self._work_through(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, grace_s: float) -> None:
        """Let work at hand finish for a moment, then end it; its messages go to another replica now."""
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=grace_s)
            await end_tasks(unfinished)
        for message in self._unfinished:
            # It may have been acknowledged in its last moment.
            with contextlib.suppress(Exception):
                await message.nak()

    async def _work_through(self, key: str) -> None:
        chain = self._chains[key]
        try:
            while chain:
                message, extension = chain[0]
                try:
                    await self._work(message)
                except asyncio.CancelledError:
                    self._unfinished.append(message)
                    raise
                finally:
                    extension.end()
                    chain.popleft()
                    self._room.release()
        finally:
            del self._chains[key]
            for message, extension in chain:
                self._unfinished.append(message)
                extension.end()
                self._room.release()


class _Extension:
    """Until it is ended, the server is told again and again that the message is being worked on."""

    __slots__ = ("_every_s", "_message", "_telling", "_timer")

    def __init__(self, message: Msg, every_s: float) -> None:
        self._message = message
        self._every_s = every_s
        self._telling: asyncio.Task[Any] | None = None
        self._timer = asyncio.get_running_loop().call_later(every_s, self._tell)

    def end(self) -> None:
        """Tell no more."""
        self._timer.cancel()

    def _tell(self) -> None:
        self._telling = asyncio.create_task(self._extend())
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._tell)

    async def _extend(self) -> None:
        try:
            await self._message.in_progress()
        except Exception as error:
            log.warning("could not keep a message", subject=self._message.subject, error=repr(error))
