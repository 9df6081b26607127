"""Non-blocking descriptors on the event loop: the hot path between a terminal and its user."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

# Reading stops above this many waiting bytes, which pauses the writer on the other side.
HIGH_WATER_BYTES = 256 * 1024
_CHUNK_BYTES = 64 * 1024
# A chunk at least this large suggests that more is waiting already.
_MORE_LIKELY_BYTES = 1024


class DescriptorReader:
    """Reads ahead a bounded amount and hands it out. Ends at end of file, and at EIO (a terminal's hang-up)."""

    def __init__(self, fd: int, read: Callable[[int, int], bytes] = os.read) -> None:
        """`read` does what `os.read` does, perhaps by another way."""
        self._fd = fd
        self._read = read
        self._loop = asyncio.get_running_loop()
        self._chunks: list[bytes] = []
        self._size = 0
        self._ended = False
        self._listening = False
        self._waiters: list[asyncio.Future[None]] = []
        self._listen()

    @property
    def buffered_bytes(self) -> int:
        """How much was read and not yet asked for."""
        return self._size

    async def read(self, max_bytes: int) -> bytes:
        """At least one byte, or `b""` at the end."""
        while not self._chunks:
            if self._ended:
                return b""
            self._listen()
            await self._more()
        data = self._take(max_bytes)
        if self._size < HIGH_WATER_BYTES // 2 and not self._ended:
            self._listen()
        return data

    async def _more(self) -> None:
        # Of its own for each: several readers may wait, and one that is cancelled takes nothing from the others.
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def _take(self, max_bytes: int) -> bytes:
        count = size = 0
        while count < len(self._chunks) and size + len(self._chunks[count]) <= max_bytes:
            size += len(self._chunks[count])
            count += 1
        if count:
            data = self._chunks[0] if count == 1 else b"".join(self._chunks[:count])
            del self._chunks[:count]
        else:
            data, self._chunks[0] = self._chunks[0][:max_bytes], self._chunks[0][max_bytes:]
        self._size -= len(data)
        return data

    def _listen(self) -> None:
        if not self._listening and not self._ended:
            self._listening = True
            self._loop.add_reader(self._fd, self._on_readable)

    def _pause(self) -> None:
        if self._listening:
            self._listening = False
            self._loop.remove_reader(self._fd)

    def _on_readable(self) -> None:
        try:
            while True:
                data = self._read(self._fd, _CHUNK_BYTES)
                if not data:
                    self.end()
                    return
                self._chunks.append(data)
                self._size += len(data)
                if len(data) < _MORE_LIKELY_BYTES or self._size >= HIGH_WATER_BYTES:
                    break
        except BlockingIOError:
            pass
        except OSError:
            self.end()
            return
        if self._size >= HIGH_WATER_BYTES:
            self._pause()
        if self._chunks:
            self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def end_if_idle(self) -> bool:
        """End when nothing waits on the other side; True when it has ended."""
        if not self._ended and self._listening:
            self._on_readable()
            if self._listening and not self._size:
                self.end()
        return self._ended

    def end(self) -> None:
        """No more comes; what is buffered can still be read."""
        self._pause()
        self._ended = True
        self._wake()


class DescriptorWriter:
    """Writes in order, waiting while the other side is full."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def write_now(self, data: bytes | memoryview) -> int:
        """How many bytes the other side takes at once; none while others wait to write. Raises as `write`."""
        return 0 if self._turn.locked() else self._try(data)

    async def write(self, data: bytes) -> None:
        """All of `data`. Raises BrokenPipeError when nobody will ever read it."""
        rest = memoryview(data)
        rest = rest[self.write_now(rest) :]
        if rest:
            async with self._turn:
                while rest:
                    rest = rest[self._try(rest) :]
                    if rest:
                        await self._writable()

    async def drain(self) -> None:
        """Wait until everything that others began to write is written."""
        async with self._turn:
            pass

    def _try(self, data: bytes | memoryview) -> int:
        if self._closed:
            raise BrokenPipeError(errno.EPIPE, "the process has ended")
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise BrokenPipeError(errno.EPIPE, "the process has ended") from error

    async def _writable(self) -> None:
        self._waiter = self._loop.create_future()
        self._loop.add_writer(self._fd, self._on_writable)
        try:
            await self._waiter
        finally:
            self._waiter = None
            # After `close` the number may already name another file.
            if not self._closed:
                self._loop.remove_writer(self._fd)

    def _on_writable(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Wake whoever waits with BrokenPipeError; the descriptor is the caller's to close."""
        if not self._closed:
            self._loop.remove_writer(self._fd)
            self._closed = True
            self._on_writable()
