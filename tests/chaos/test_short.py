"""The short form of `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import sandboxes
from tests.chaos.run import Options, Run, started

_OPTIONS = Options(seed=559, lifecycles=20, users=10, fault_every_s=1.5, handler_errors=0.05, long_pauses=False)


@pytest.mark.chaos
@pytest.mark.timeout(400)
async def test_nothing_is_lost_doubled_or_stuck_while_processes_die(tmp_path: Path) -> None:
    stack = started(tmp_path / "data", _OPTIONS)
    said: list[str] = []
    try:
        stack.up()
        outcome = await Run(stack, _OPTIONS, said.append)()
    finally:
        stack.down()
    assert outcome.violations == [], "\n".join(map(str, (*said, *outcome.violations)))
    assert sandboxes.living(stack.paths.runtime) == {}
    ledger = outcome.ledger
    assert (ledger.counts["finished"], len(ledger.lives)) == (_OPTIONS.lifecycles, _OPTIONS.lifecycles)
    # The run was not a walk in the park.
    assert {"pause envs", "terminate nats", "kill -9 orchestrator", "kill -9 terminal"} <= set(outcome.faults)
    assert min(outcome.handler_failures.values()) > 0
    assert ledger.poison
    assert sum(replay.handled for replay in outcome.replays) > 100
