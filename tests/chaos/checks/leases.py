"""No lease is held by somebody who is gone."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.evidence import Evidence
from tests.chaos.ledger import LEASE, Ledger, Violation


def leases(evidence: Evidence, ledger: Ledger) -> Iterator[Violation]:
    """A lease with a holder must be one that still holds: a dead holder's is taken over and given back."""
    for environment_id, workspace in evidence.documents("orchestrator", "workspaces").items():
        lease = workspace["lease"]
        if lease["holder"] is not None and lease["until"] < evidence.now:
            overdue_s = (evidence.now - lease["until"]).total_seconds()
            yield Violation(LEASE, environment_id, f"{lease['holder']} has held its lease {overdue_s:.0f} s too long")
