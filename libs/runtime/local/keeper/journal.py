"""The last output of a shell in memory that outlives who writes it, recorded without ever losing a byte.

Output moves from the terminal into a pipe that the keeper holds too, in one system call (`splice`); then from the pipe
to its place in the journal, then the end moves on. Whoever looks at journal and pipe after a death in between knows
from the numbers in the header which of these steps were done, and does the rest.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import termios
from functools import cache

from libs.runtime.port import DriverError

TAKE_BYTES = 64 * 1024
_PAGE = mmap.PAGESIZE
# start, end, pending, epoch
_HEADER = struct.Struct("=QQQQ")
_ENDS = struct.Struct("=QQQ")
_ONE = struct.Struct("=Q")
_PENDING_AT, _EPOCH_AT = 16, 24
# The number of bytes that are on their way is not known yet.
_SOME = 2**64 - 1
_SPLICE_NONBLOCK = 2


class JournalTakenError(BlockingIOError):
    """Somebody else records now: nothing can be taken."""


class Pipe:
    """Empty but for the length of one `take`; one for all journals of a process."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def close(self) -> None:
        """Give both ends back."""
        os.close(self.out)
        os.close(self.into)


class Journal:
    """Holds at least the last `limit` bytes, as far as they were not trimmed away."""

    def __init__(self, fd: int) -> None:
        """`fd`: of `make`; it stays the caller's. Raises DriverError."""
        size = os.fstat(fd).st_size - _PAGE
        if size < 2 * TAKE_BYTES:
            raise DriverError("This is no journal.")
        self._size = size
        self._limit = size - TAKE_BYTES
        self._memory = mmap.mmap(fd, size + _PAGE)
        self._view = memoryview(self._memory)
        self._epoch = 0
        self.start, self.end, _, _ = _HEADER.unpack_from(self._memory)

    @classmethod
    def make(cls, limit: int) -> int:
        """A descriptor of an empty one; `limit` is rounded up to whole pages."""
        fd = os.memfd_create("devpocket-journal", os.MFD_CLOEXEC)
        os.ftruncate(fd, _PAGE + -(-limit // _PAGE) * _PAGE + TAKE_BYTES)
        return fd

    def claim(self, pipe_out: int | None) -> None:
        """Record from now on, and finish what the one before had begun; `pipe_out` is where that one's pipe ends."""
        self.start, self.end, pending, epoch = _HEADER.unpack_from(self._memory)
        self._epoch = epoch + 1
        _ONE.pack_into(self._memory, _EPOCH_AT, self._epoch)
        if pending == self.end:
            return
        waiting = 0 if pipe_out is None else _waiting(pipe_out)
        if pipe_out is not None and waiting:
            self._fill(pipe_out, waiting)
        elif pending != _SOME:
            self.end = pending
        self._record()

    def take(self, terminal: int, pipe: Pipe, max_bytes: int) -> bytes:
        """The next output; `b""` at its end. Raises BlockingIOError when there is none now, OSError at a hang-up."""
        if _ONE.unpack_from(self._memory, _EPOCH_AT)[0] != self._epoch:
            raise JournalTakenError
        _ONE.pack_into(self._memory, _PENDING_AT, _SOME)
        count = 0
        try:
            count = os.splice(terminal, pipe.into, min(max_bytes, TAKE_BYTES), flags=_SPLICE_NONBLOCK)
        finally:
            _ONE.pack_into(self._memory, _PENDING_AT, self.end + count)
        begin = self.end
        self._fill(pipe.out, count)
        self._record()
        return self.read(begin, count)

    def read(self, offset: int, max_bytes: int) -> bytes:
        """From `offset` on, which lies between `start` and `end`."""
        return b"".join(self._places(offset, min(max_bytes, self.end - offset)))

    def trim(self, size: int) -> None:
        """Forget all but the last `size` bytes, and give the memory back."""
        start = self.start
        self.start = max(start, self.end - size)
        self._record()
        for begin, end in self._spans(start, self.start - start):
            first, last = -(-begin // _PAGE) * _PAGE, end // _PAGE * _PAGE
            if last > first:
                self._memory.madvise(mmap.MADV_REMOVE, first, last - first)

    def close(self) -> None:
        """Unmap it here."""
        self._view.release()
        self._memory.close()

    def _fill(self, pipe_out: int, count: int) -> None:
        while count:
            got = os.readv(pipe_out, self._places(self.end, count))
            self.end += got
            count -= got

    def _record(self) -> None:
        self.start = max(self.start, self.end - self._limit)
        _ENDS.pack_into(self._memory, 0, self.start, self.end, self.end)

    def _places(self, offset: int, count: int) -> list[memoryview]:
        return [self._view[begin:end] for begin, end in self._spans(offset, count)]

    def _spans(self, offset: int, count: int) -> list[tuple[int, int]]:
        """Where these bytes are in memory: one stretch, or two around the end."""
        begin = offset % self._size
        first = min(count, self._size - begin)
        spans = [(_PAGE + begin, _PAGE + begin + first)]
        if count > first:
            spans.append((_PAGE, _PAGE + count - first))
        return spans


@cache
def is_supported() -> bool:
    """Whether this machine's kernel can move output from a terminal into a pipe (Linux 5.11)."""
    master, slave = os.openpty()
    pipe = Pipe()
    try:
        os.write(slave, b"x")
        return os.splice(master, pipe.into, 1) == 1
    except (OSError, AttributeError):
        return False
    finally:
        pipe.close()
        os.close(master)
        os.close(slave)


def _waiting(fd: int) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, struct.pack("i", 0)))
    return int(count)
