"""What must be true when a run is over. Each check is a pure function of the evidence and of what was promised."""

from __future__ import annotations

from tests.chaos.checks.history import histories, identities
from tests.chaos.checks.leases import leases
from tests.chaos.checks.letters import letters
from tests.chaos.checks.models import models
from tests.chaos.checks.remains import remains
from tests.chaos.checks.reports import reports
from tests.chaos.checks.requests import requests
from tests.chaos.checks.settled import settled
from tests.chaos.evidence import Evidence
from tests.chaos.ledger import Ledger, Violation

CHECKS = (requests, histories, identities, reports, settled, models, leases, remains, letters)


def violations(evidence: Evidence, ledger: Ledger) -> list[Violation]:
    """Everything that is not as it must be, what was noticed during the run first."""
    return [*ledger.noticed, *(found for check in CHECKS for found in check(evidence, ledger))]
