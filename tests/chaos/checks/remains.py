"""What may be left: one sandbox for each environment that runs, and the things of those that exist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.chaos.evidence import Evidence
from tests.chaos.ledger import DOUBLED, LOST, ORPHAN, Ledger, Violation


def remains(evidence: Evidence, ledger: Ledger) -> Iterator[Violation]:
    """Processes and folders or objects against the environments in the database of envs."""
    environments = evidence.documents("envs", "environments")
    existing = {key for key, document in environments.items() if document["status"] != "terminated"}
    running = {key for key in existing if environments[key]["status"] == "running"}
    for environment_id, pids in evidence.sandboxes.items():
        if environment_id not in running:
            yield Violation(ORPHAN, environment_id, f"should not run, but processes {pids} do")
        elif len(pids) > 1:
            yield Violation(DOUBLED, environment_id, f"has {len(pids)} sandboxes: {pids}")
    for environment_id in running - set(evidence.sandboxes):
        yield Violation(LOST, environment_id, "should run and has no sandbox")
    # A user's namespace goes with the user's last environment.
    owners = existing | {environments[key]["user_id"] for key in existing}
    for thing in evidence.things:
        if thing.owner not in owners or thing.ending:
            yield Violation(ORPHAN, thing.owner, f"{thing.kind} {thing.name} is left of it")
    for environment_id, number in Counter(thing.owner for thing in evidence.things if thing.kind == "pods").items():
        if number > 1:
            yield Violation(DOUBLED, environment_id, f"has {number} pods")
