"""What was read of a terminal is recorded exactly, whenever the one who reads dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.runtime.local.keeper.journal import Journal, JournalTakenError, Pipe, is_supported
from libs.runtime.port import DriverError

_LIMIT = 128 * 1024


class Death(BaseException):
    """Nothing that comes after it is done."""


class Bench:
    """A journal, a source to read from, and what came out of it so far."""

    def __init__(self) -> None:
        self.memory = Journal.make(_LIMIT)
        self.source, self._into = os.pipe2(os.O_NONBLOCK)
        # Each write may take a page of its own, however small it is.
        fcntl.fcntl(self._into, fcntl.F_SETPIPE_SZ, 1 << 20)
        self.pipe = Pipe()
        self.journal = Journal(self.memory)
        self.journal.claim(None)
        self.written = b""

    def write(self, data: bytes) -> None:
        os.write(self._into, data)
        self.written += data

    def take(self, most: int = 65536) -> bytes:
        return self.journal.take(self.source, self.pipe, most)

    def take_all(self) -> None:
        try:
            while True:
                self.take()
        except BlockingIOError:
            pass

    def succeed(self) -> None:
        """Another one goes on, with a pipe of its own."""
        old, self.pipe = self.pipe, Pipe()
        self.journal = Journal(self.memory)
        self.journal.claim(old.out)
        old.close()

    def kept(self) -> bytes:
        return self.journal.read(self.journal.start, _LIMIT * 2)

    def close(self) -> None:
        self.pipe.close()
        for fd in (self.memory, self.source, self._into):
            os.close(fd)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def test_this_machine_can_do_it() -> None:
    assert is_supported()


def test_it_gives_what_it_takes_and_keeps_it(bench: Bench) -> None:
    bench.write(b"one")
    assert bench.take() == b"one"
    bench.write(b"two")
    assert bench.take(2) == b"tw"
    assert bench.take() == b"o"
    assert bench.kept() == b"onetwo"
    with pytest.raises(BlockingIOError):
        bench.take()
    assert (bench.journal.start, bench.journal.end) == (0, 6)


def test_the_end_of_the_source_is_told(bench: Bench) -> None:
    os.close(bench._into)
    assert bench.take() == b""
    bench._into = os.open("/dev/null", os.O_RDONLY)


@pytest.mark.parametrize(
    "step", ["before all", "when it has left the source", "when it is in place", "when it is told"]
)
def test_a_death_at_any_step_loses_and_doubles_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def die(*_: object, **__: object) -> None:
        raise Death

    bench.write(b"before")
    bench.take()
    bench.write(b"now")
    with monkeypatch.context() as patch:
        if step == "before all":
            patch.setattr(os, "splice", die)
        elif step == "when it has left the source":
            patch.setattr(bench.journal, "_fill", die)
        elif step == "when it is in place":
            patch.setattr(bench.journal, "_record", die)
        else:
            patch.setattr(bench.journal, "read", die)
        with pytest.raises(Death):
            bench.take()
    bench.succeed()
    bench.take_all()
    assert bench.kept() == b"beforenow"


def test_a_death_before_it_is_known_how_much_left_the_source(bench: Bench) -> None:
    """As the header has it then: some output is on its way, and the pipe alone knows how much."""
    bench.write(b"before")
    bench.take()
    bench.journal._memory[16:24] = b"\xff" * 8
    bench.write(b"now")
    assert os.splice(bench.source, bench.pipe.into, 100) == 3
    bench.succeed()
    assert bench.kept() == b"beforenow"


def test_who_was_succeeded_takes_nothing(bench: Bench) -> None:
    old, pipe = bench.journal, bench.pipe
    bench.pipe = Pipe()
    bench.journal = Journal(bench.memory)
    bench.journal.claim(pipe.out)
    bench.write(b"x")
    with pytest.raises(JournalTakenError):
        old.take(bench.source, pipe, 10)
    assert bench.take() == b"x"
    pipe.close()


def test_trimming_gives_memory_back(bench: Bench) -> None:
    for _ in range(4):
        bench.write(os.urandom(32 * 1024))
        bench.take_all()
    full = os.fstat(bench.memory).st_blocks
    bench.journal.trim(1000)
    assert os.fstat(bench.memory).st_blocks < full / 4
    assert bench.kept() == bench.written[-1000:]


def test_what_is_no_journal_is_refused() -> None:
    fd = os.memfd_create("small")
    with pytest.raises(DriverError):
        Journal(fd)
    os.close(fd)


_STEPS = st.lists(
    st.one_of(
        st.integers(1, 60_000).map(lambda size: ("write", size)),
        st.integers(1, 70_000).map(lambda size: ("take", size)),
        st.integers(0, _LIMIT).map(lambda size: ("trim", size)),
        st.just(("succeed", 0)),
    ),
    max_size=60,
)


@given(steps=_STEPS)
def test_it_is_the_end_of_what_was_written(steps: list[tuple[str, int]]) -> None:
    bench, taken, start = Bench(), b"", 0
    for what, size in steps:
        if what == "write" and len(bench.written) - len(taken) + size <= 60_000:
            bench.write(os.urandom(size))
        elif what == "take":
            try:
                taken += bench.take(size)
            except BlockingIOError:
                assert taken == bench.written
        elif what == "trim":
            bench.journal.trim(size)
            start = max(start, len(taken) - size)
        elif what == "succeed":
            bench.succeed()
        start = max(start, len(taken) - _LIMIT)
        assert (bench.journal.start, bench.journal.end) == (start, len(taken))
        assert bench.kept() == bench.written[start : len(taken)]
    bench.close()
