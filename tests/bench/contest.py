"""Keystroke echo and flood of terminal servers, in turns: whatever else the machine does hits all of them alike."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import terminals
from tests.bench.measures import Result, percentile
from tests.bench.terminals import Server, Terminal

_OUTPUT_TIMEOUT_S = 10.0
# ttyd hangs up on who has not answered its pings for 12 s, and the others wait meanwhile.
_FLOOD_TIMEOUT_S = 8.0
_KEYSTROKES_A_TURN = 50
_QUIET_S = 0.3
_SEARCHED_BYTES = 4096


@dataclass
class Score:
    """What one server did: milliseconds of every keystroke by round, MB/s by round; whether all floods ended."""

    echoes: list[list[float]] = field(default_factory=list)
    floods: list[float] = field(default_factory=list)
    ended: bool = True

    @property
    def samples(self) -> list[float]:
        """Of all rounds."""
        return [sample for echoes in self.echoes for sample in echoes]


def terminal_results(url: str, environment_id: str, token: str, quick: bool) -> list[Result]:
    """Ours beside ttyd and terminado, each behind a gateway of the same kind."""
    rounds, keystrokes, megabytes = (2, 300, 20) if quick else (6, 1000, 50)
    with tempfile.TemporaryDirectory(prefix="devpocket-bench-terminals-") as name, ExitStack() as stack:
        folder = Path(name)
        servers = [stack.enter_context(terminals.devpocket(url, environment_id, token))]
        for label, other in (("ttyd", terminals.ttyd), ("terminado", terminals.terminado)):
            server = stack.enter_context(other(folder))
            if server is None:
                print(f"{label} is not installed: left out", file=sys.stderr)
            else:
                servers.append(server)
        return _results(contest(servers, rounds, keystrokes, megabytes), megabytes)


def contest(servers: Sequence[Server], rounds: int, keystrokes: int, megabytes: int) -> dict[str, Score]:
    """A new shell of each server in each round. One whose flood did not end is spared further ones."""
    scores = {server.name: Score() for server in servers}
    for number in range(rounds):
        print(f"measuring terminals, round {number + 1} of {rounds} …", file=sys.stderr)
        turns = (*servers[number % len(servers) :], *servers[: number % len(servers)])
        with ExitStack() as stack:
            shells = {server.name: stack.enter_context(closing(server.open())) for server in turns}
            for name, samples in _echoes(shells, keystrokes).items():
                scores[name].echoes.append(samples)
            for name, terminal in shells.items():
                score = scores[name]
                if score.ended:
                    rate, score.ended = flood(terminal, megabytes)
                    score.floods.append(rate)
    return scores


def _echoes(shells: Mapping[str, Terminal], keystrokes: int) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in shells}
    for terminal in shells.values():
        terminal.send(b"cat > /dev/null\n")
        _read_until(terminal, b"cat > /dev/null")
        _quiet(terminal)
    for _ in range(keystrokes // _KEYSTROKES_A_TURN):
        for name, terminal in shells.items():
            samples[name] += echo(terminal, _KEYSTROKES_A_TURN)
    for terminal in shells.values():
        terminal.send(b"\x03")
        _quiet(terminal)
    return samples


def echo(terminal: Terminal, keystrokes: int) -> list[float]:
    """Milliseconds from one keystroke to its echo, by the terminal's own line discipline."""
    samples: list[float] = []
    for _ in range(keystrokes):
        started = time.perf_counter()
        terminal.send(b"x")
        while b"x" not in terminal.receive(_OUTPUT_TIMEOUT_S):
            continue
        samples.append((time.perf_counter() - started) * 1000)
    return samples


def flood(terminal: Terminal, megabytes: int) -> tuple[float, bool]:
    """MB/s of a program that writes as fast as it can, and whether it ended in time."""
    count = megabytes * 1_000_000
    # The shell joins the quotes, so that the marker shows only in the output and not in the echoed command.
    terminal.send(f"stty -onlcr; head -c {count} /dev/zero | tr '\\0' y; echo do''ne-{count}\n".encode())
    marker = f"done-{count}".encode()
    started = time.perf_counter()
    received = 0
    seen = b""
    while marker not in seen:
        if time.perf_counter() - started > _FLOOD_TIMEOUT_S:
            return received / 1_000_000 / _FLOOD_TIMEOUT_S, False
        data = terminal.receive(_OUTPUT_TIMEOUT_S)
        received += len(data)
        # Looked for near the end only: searching a whole flood would cost the servers their cores.
        seen = (seen + data)[-_SEARCHED_BYTES:] if len(data) < _SEARCHED_BYTES else bytes(data[-_SEARCHED_BYTES:])
    return received / 1_000_000 / (time.perf_counter() - started), True


def _read_until(terminal: Terminal, wanted: bytes) -> None:
    seen = b""
    while wanted not in seen:
        seen += terminal.receive(_OUTPUT_TIMEOUT_S)


def _quiet(terminal: Terminal) -> None:
    """Read until nothing has come for a while."""
    try:
        while True:
            terminal.receive(_QUIET_S)
    except TimeoutError:
        return


def _results(scores: dict[str, Score], megabytes: int) -> list[Result]:
    results: list[Result] = []
    for name, score in scores.items():
        detail = f"p99 {percentile(score.samples, 99):.3f} ms, {len(score.samples)} times"
        results.append(Result(f"keystroke → echo, p50, {name}", statistics.median(score.samples), "ms", "", detail))
    for name, score in scores.items():
        spread = f"{min(score.floods):.0f} to {max(score.floods):.0f}"
        detail = f"{len(score.floods)} x {megabytes} MB, {spread}" if score.ended else "did not end in time"
        results.append(Result(f"flood, {name}", statistics.median(score.floods), "MB/s", "", detail))
    for other, echo_budget, flood_budget in (("ttyd", "≤ 1.5", "≥ 0.8"), ("terminado", "< 1", "> 1")):
        if other in scores:
            results += _ratios(scores["devpocket"], scores[other], other, echo_budget, flood_budget)
    return results


def _ratios(ours: Score, theirs: Score, other: str, echo_budget: str, flood_budget: str) -> list[Result]:
    by_round = [statistics.median(a) / statistics.median(b) for a, b in zip(ours.echoes, theirs.echoes, strict=True)]
    p50 = statistics.median(ours.samples) / statistics.median(theirs.samples)
    rate = statistics.median(ours.floods) / statistics.median(theirs.floods)
    detail = f"by round {min(by_round):.2f} to {max(by_round):.2f}"
    return [
        Result(f"keystroke → echo, p50, devpocket / {other}", p50, "x", echo_budget, detail),
        Result(f"flood, devpocket / {other}", rate, "x", flood_budget),
    ]
