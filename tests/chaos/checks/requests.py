"""Every accepted request has taken effect, once."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.evidence import Evidence
from tests.chaos.ledger import DOUBLED, LOST, WISHES, Accepted, Ledger, Life, Violation


def requests(evidence: Evidence, ledger: Ledger) -> Iterator[Violation]:
    """A request's id is the correlation id of its events: that ties what was promised to what is in the stream."""
    environments = evidence.documents("envs", "environments")
    for life in ledger.lives.values():
        for accepted in life.accepted:
            yield from _effect(evidence, accepted)
        document = environments.get(life.environment_id)
        if document is None:
            yield Violation(LOST, life.environment_id, "was created and is not in the database of envs")
        else:
            yield from _last_wish(life, document)
    yield from _sign_ins(evidence, ledger)


def _effect(evidence: Evidence, accepted: Accepted) -> Iterator[Violation]:
    kind = WISHES[accepted.kind]
    total = 0
    for attempt in accepted.attempts:
        caused = [message for message in evidence.caused_by(attempt) if message.event and message.event.type == kind]
        total += len(caused)
        if len(caused) > 1:
            where = [message.sequence for message in caused]
            yield Violation(DOUBLED, accepted.environment_id, f"{accepted.kind} {attempt} has events at {where}")
    if total == 0:
        yield Violation(LOST, accepted.environment_id, f"{accepted.kind} {accepted.attempts} was accepted, no event")


def _last_wish(life: Life, document: dict[str, object]) -> Iterator[Violation]:
    if document["desired"] != life.wanted:
        what = f"the last accepted wish is {life.wanted}, the database of envs says {document['desired']}"
        yield Violation(LOST, life.environment_id, what)
    if document["description"] != life.description:
        what = f"the last accepted description is {life.description!r}, stored is {document['description']!r}"
        yield Violation(LOST, life.environment_id, what)


def _sign_ins(evidence: Evidence, ledger: Ledger) -> Iterator[Violation]:
    for request in ledger.sign_ins:
        found = [message for message in evidence.caused_by(request) if message.name == "user.logged_in"]
        if len(found) != 1:
            kind = LOST if not found else DOUBLED
            yield Violation(kind, request, f"a sign-in was accepted and has {len(found)} events")
