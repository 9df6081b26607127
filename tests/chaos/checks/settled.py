"""Nothing is left in between, and what is wanted is what there is."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.evidence import Evidence
from tests.chaos.ledger import STUCK, Ledger, Violation
from tests.chaos.rest import unrest

_STATUS = {"running": "running", "stopped": "stopped", "deleted": "terminated"}


def settled(evidence: Evidence, ledger: Ledger) -> Iterator[Violation]:
    """Statuses that stay, and nothing on its way; every lifecycle came to its end."""
    for what in unrest(evidence):
        yield Violation(STUCK, "-", what)
    for environment_id, document in evidence.documents("envs", "environments").items():
        if document["status"] != _STATUS[document["desired"]]:
            reason = document.get("status_reason")
            what = f"is wanted {document['desired']} and is {document['status']}: {reason}"
            yield Violation(STUCK, environment_id, what)
    for life in ledger.lives.values():
        if not life.finished:
            yield Violation(STUCK, life.environment_id, f"its lifecycle ({life.name}) did not come to its end")
