"""Each service's read models, rebuilt from the stream by `devpocket events replay`, against the live ones."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.checks.letters import matches
from tests.chaos.evidence import Evidence
from tests.chaos.ledger import DRIFT, Ledger, Violation
from tests.chaos.stack import SERVICE_NAMES

_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of replaying one service: counts of events, and the fields that differ (at most some of them)."""

    service: str
    events: int
    handled: int
    failed: int
    drifted: int
    fields: Sequence[dict[str, Any]]


async def replays(data_dir: Path) -> list[Replay]:
    """Replay every service of a stack at rest. Raises RuntimeError when a replay does not come to its end."""
    return await asyncio.gather(*(_replay(data_dir, service) for service in SERVICE_NAMES))


def drift(found: Sequence[Replay], evidence: Evidence, ledger: Ledger) -> Iterator[Violation]:
    """Every field that a replay sees differently; and nothing but poison may fail in a replay."""
    for replay in found:
        for field in replay.fields:
            where = f"{replay.service}.{field['collection']}.{field['field']}"
            what = f"{where} is {field['live']!r} live and {field['replayed']!r} replayed"
            yield Violation(DRIFT, str(field["id"]), what)
        if replay.drifted > len(replay.fields):
            yield Violation(DRIFT, replay.service, f"{replay.drifted} fields differ, {len(replay.fields)} are shown")
        filters = [item.subject for item in evidence.consumers if item.name.startswith(f"{replay.service}-")]
        poison = [item for item in ledger.poison if any(matches(subject, item.subject) for subject in filters)]
        if replay.failed != len(poison):
            what = f"{replay.failed} events failed in the replay, {len(poison)} are poison"
            yield Violation(DRIFT, replay.service, what)


async def _replay(data_dir: Path, service: str) -> Replay:
    asked = ("--service", service, "--into", f"chaos_replay_{service}", "--diff", "--json", "--data-dir", str(data_dir))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "libs.cli.main", "events", "replay", *asked),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(_TIMEOUT_S):
        output, errors = await process.communicate()
    try:
        answer = json.loads(output)
    except ValueError as error:
        raise RuntimeError(f"the replay of {service} ended with {process.returncode}: {errors.decode()}") from error
    return Replay(
        service, answer["events"], answer["handled"], answer["failed"], answer["drifted"], tuple(answer["drift"])
    )
