"""Each service's read models, rebuilt from the stream by `devpocket events replay`, against the live ones."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libs.cli.stack.paths import PROJECT_ROOT
from tests.chaos.ledger import DRIFT, Ledger, Violation
from tests.chaos.stack import SERVICE_NAMES

_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of replaying one service: counts of events, and what differs or failed (at most some of it).

    `problem` says why it did not come to its end.
    """

    service: str
    events: int = 0
    handled: int = 0
    failed: int = 0
    drifted: int = 0
    fields: Sequence[dict[str, Any]] = ()
    failures: Sequence[dict[str, Any]] = ()
    problem: str = ""


async def replays(data_dir: Path) -> list[Replay]:
    """Replay every service of a stack at rest; one after the other, because the database is what takes the time."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.replaying", "--data-dir", str(data_dir), *SERVICE_NAMES),
        cwd=PROJECT_ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        return [Replay("all", problem=f"it took longer than {_TIMEOUT_S:.0f} s")]
    if process.returncode != 0:
        return [Replay("all", problem=f"code {process.returncode}: {errors.decode(errors='replace').strip()}")]
    return [_replay(service, *said) for service, said in json.loads(output).items()]


def drift(found: Sequence[Replay], ledger: Ledger) -> Iterator[Violation]:
    """Every field that a replay sees differently; and nothing but poison may fail in a replay."""
    poison = {item.sequence for item in ledger.poison}
    for replay in found:
        if replay.problem:
            yield Violation(DRIFT, replay.service, f"could not be replayed: {replay.problem}")
        for field in replay.fields:
            where = f"{replay.service}.{field['collection']}.{field['field']}"
            what = f"{where} is {field['live']!r} live and {field['replayed']!r} replayed"
            yield Violation(DRIFT, str(field["id"]), what)
        if replay.drifted > len(replay.fields):
            yield Violation(DRIFT, replay.service, f"{replay.drifted} fields differ, {len(replay.fields)} are shown")
        for failure in replay.failures:
            if failure["sequence"] not in poison:
                yield Violation(DRIFT, failure["subject"], f"fails in the replay of {replay.service}: {failure}")
        if replay.failed > len(poison):
            what = f"{replay.failed} events failed in the replay, {len(poison)} are poison"
            yield Violation(DRIFT, replay.service, what)


def _replay(service: str, output: str, problem: str) -> Replay:
    try:
        answer = json.loads(output)
    except ValueError:
        return Replay(service, problem=problem)
    counts = {name: answer[name] for name in ("events", "handled", "failed", "drifted", "failures")}
    return Replay(service, fields=answer["drift"], **counts)
