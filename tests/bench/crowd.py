"""Many shells in one terminal process: what an idle one costs in memory, and how long an echo takes when many type."""

from __future__ import annotations

import contextlib
import random
import resource
import selectors
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from tests.bench.measures import Result, percentile
from tests.bench.terminals import Server, Terminal, devpocket

_OUTPUT_TIMEOUT_S = 10.0
_PING_TIMEOUT_S = 0.0005
_QUIET_S = 2.0
_KEYS_PER_S = 2.0
# Opened before what is counted, so that what a first shell loads is not on the others' bill.
_WARM = 20
_SPARE_FILES = 200


def crowd_results(url: str, environment_ids: Sequence[str], token: str, pid: int, quick: bool) -> list[Result]:
    """Shells in turn in each environment; `pid`: of the one terminal process."""
    shells, typists, seconds = (100, 10, 5.0) if quick else (1000, 100, 20.0)
    with ExitStack() as stack:
        stack.enter_context(_open_files(shells + _SPARE_FILES))
        servers = [stack.enter_context(devpocket(url, each, token)) for each in environment_ids]
        _open(servers, _WARM, stack)
        before = _memory_kib(pid)
        started = time.perf_counter()
        terminals = _open(servers, shells, stack)
        opened_s = time.perf_counter() - started
        each = (_memory_kib(pid) - before) / shells
        print(f"{typists} of {shells} shells type for {seconds:.0f} s …", file=sys.stderr)
        busy = _cpu_seconds(pid)
        samples = _type(terminals, typists, seconds)
        busy = (_cpu_seconds(pid) - busy) / seconds
    detail = f"private memory of {shells}, opened in {opened_s:.0f} s"
    typing = f"{shells} shells, {typists} x {_KEYS_PER_S:.0f} keys/s, {len(samples)} times, {busy:.0%} of a core"
    return [
        Result("idle shell in the terminal process", each, "KiB", "≤ 64", detail),
        Result("keystroke → echo, p50, in a crowd", statistics.median(samples), "ms", "", typing),
        Result("keystroke → echo, p99, in a crowd", percentile(samples, 99), "ms", "≤ 50", typing),
    ]


def _open(servers: Sequence[Server], count: int, stack: ExitStack) -> list[Terminal]:
    """Shells that have shown their prompt and rest."""
    terminals: list[Terminal] = []
    for number in range(count):
        if number % 100 == 0:
            print(f"{number} of {count} shells are open …", file=sys.stderr)
        terminal = stack.enter_context(closing(servers[number % len(servers)].open()))
        # In the shell's place: half the processes.
        terminal.send(b"exec cat > /dev/null\n")
        seen = b""
        while b"cat > /dev/null" not in seen:
            seen += terminal.receive(_OUTPUT_TIMEOUT_S)
        terminals.append(terminal)
    deadline = time.perf_counter() + _QUIET_S
    for terminal in terminals:
        with contextlib.suppress(TimeoutError):
            while True:
                terminal.receive(max(0.001, deadline - time.perf_counter()))
    return terminals


def _type(terminals: Sequence[Terminal], typists: int, seconds: float) -> list[float]:
    """Milliseconds of each echo. Who types does so at a steady pace, whether or not the echo has come."""
    samples: list[float] = []
    # The others answer pings.
    sent: dict[Terminal, list[float]] = {terminal: [] for terminal in terminals}
    now = time.perf_counter()
    end = now + seconds
    due = {terminal: now + random.random() / _KEYS_PER_S for terminal in terminals[:typists]}
    with selectors.EpollSelector() as selector:
        for terminal in terminals:
            selector.register(terminal, selectors.EVENT_READ, terminal)
        while (now := time.perf_counter()) < end or any(sent.values()):
            for terminal, at in due.items():
                if at <= now < end:
                    sent[terminal].append(time.perf_counter())
                    terminal.send(b"x")
                    due[terminal] = at + 1 / _KEYS_PER_S
            wait = max(0.0, min(due.values()) - time.perf_counter()) if now < end else _OUTPUT_TIMEOUT_S
            ready = selector.select(wait)
            if now >= end and not ready:
                raise TimeoutError("an echo never came")
            for key, _ in ready:
                _hear(key.data, sent[key.data], samples)
    return samples


def _hear(terminal: Terminal, sent: list[float], samples: list[float]) -> None:
    # It may have been a ping, behind which nothing comes.
    with contextlib.suppress(TimeoutError):
        while True:
            keys = terminal.receive(_PING_TIMEOUT_S).count(b"x")
            arrived = time.perf_counter()
            samples += [(arrived - at) * 1000 for at in sent[:keys]]
            del sent[:keys]
            if not terminal.has_more:
                return


def _memory_kib(pid: int) -> int:
    """What would be free without this process: its own pages, not those it shares."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@contextmanager
def _open_files(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
