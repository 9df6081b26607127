"""What may be left on the machine: one sandbox for each environment that runs, one volume for each that exists."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.evidence import Evidence
from tests.chaos.ledger import DOUBLED, LOST, ORPHAN, Ledger, Violation


def remains(evidence: Evidence, ledger: Ledger) -> Iterator[Violation]:
    """Processes and folders against the environments in the database of envs."""
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
    for folder, names in evidence.folders.items():
        for name in names:
            # Volumes on their way out carry a random ending.
            environment_id = name.partition(".")[0]
            if environment_id not in existing or folder == "trash":
                yield Violation(ORPHAN, environment_id, f"{folder}/{name} is left of it")
