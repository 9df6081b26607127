"""The short form of `make chaos`, on either runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.run import Options, Run, started

# Some pauses are longer than the wait for an acknowledgement, which in a long run takes long pauses.
_BRIEF: dict[str, Any] = {"handler_errors": 0.05, "long_pauses": False, "most_faults": 9, "ack_wait_s": 5.0}
_LOCAL = Options(seed=559, lifecycles=14, users=7, fault_every_s=1.5, **_BRIEF)
_KUBERNETES = Options(seed=1888, lifecycles=12, users=6, fault_every_s=1.2, runtime="kubernetes", **_BRIEF)
_HURT: Mapping[str, set[str]] = {
    "local": {"pause envs", "terminate nats", "kill -9 orchestrator", "kill -9 terminal"},
    # Which of the others come in time depends on how fast the machine is.
    "kubernetes": {"pod deleted"},
}


@pytest.mark.chaos
@pytest.mark.timeout(400)
@pytest.mark.parametrize("options", [_LOCAL, _KUBERNETES], ids=lambda options: options.runtime)
async def test_nothing_is_lost_doubled_or_stuck_while_processes_die(tmp_path: Path, options: Options) -> None:
    said: list[str] = []
    with started(tmp_path / "data", options) as (stack, ground):
        outcome = await Run(stack, ground, options, said.append)()
    assert outcome.violations == [], "\n".join(map(str, (*said, *outcome.violations)))
    assert ground.living() == {}
    ledger = outcome.ledger
    assert (ledger.counts["finished"], len(ledger.lives)) == (options.lifecycles, options.lifecycles)
    # The run was not a walk in the park.
    assert set(outcome.faults) >= _HURT[options.runtime]
    assert len(outcome.faults) >= 6
    assert min(outcome.handler_failures.values()) > 0
    assert ledger.poison
    assert sum(replay.handled for replay in outcome.replays) > 100
