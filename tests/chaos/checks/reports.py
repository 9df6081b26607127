"""What the orchestrator has said: each thing once, and never two of it at work on one environment."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.evidence import Evidence, Message
from tests.chaos.ledger import DOUBLED, LOST, Ledger, Violation

_ONCE = {"runtime.running", "runtime.stopped", "runtime.deleted", "runtime.provisioning", "runtime.failed"}


def reports(evidence: Evidence, ledger: Ledger) -> Iterator[Violation]:
    """A report comes once for each generation; after a loss it may come once more. Generations never go back."""
    for environment_id, workspace in evidence.documents("orchestrator", "workspaces").items():
        said = evidence.about(environment_id, "runtime")
        yield from _once(environment_id, said)
        yield from _forward(environment_id, said)
        observed = workspace["observed"]
        last = (said[-1].name.partition(".")[2], said[-1].data["generation"]) if said else ("nothing", 0)
        if last != (observed["said"], observed["generation"]):
            what = f"the stream ends with {last}, the orchestrator said {observed['said'], observed['generation']}"
            yield Violation(LOST, environment_id, what)


def _once(environment_id: str, said: list[Message]) -> Iterator[Violation]:
    seen: dict[tuple[str, int], int] = {}
    for message in said:
        generation = message.data["generation"]
        if message.name == "runtime.lost":
            seen = {key: at for key, at in seen.items() if key[1] != generation or key[0] == "runtime.provisioning"}
        key = (message.name, generation)
        if message.name in _ONCE and key in seen:
            what = f"{message.name} for generation {generation} is in the stream at {seen[key]} and {message.sequence}"
            yield Violation(DOUBLED, environment_id, what)
        seen[key] = message.sequence


def _forward(environment_id: str, said: list[Message]) -> Iterator[Violation]:
    newest = 0
    for message in said:
        generation = message.data["generation"]
        if generation < newest:
            what = f"{message.name} for generation {generation} at {message.sequence}, after one for {newest}"
            yield Violation(DOUBLED, environment_id, what)
        newest = max(newest, generation)
