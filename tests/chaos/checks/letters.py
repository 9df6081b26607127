"""Dead letters: all of the poison, once for each consumer that met it, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from libs.common.messaging.subscriptions import Subscription
from tests.chaos.evidence import Evidence
from tests.chaos.ledger import LETTER, Ledger, Violation


def letters(evidence: Evidence, ledger: Ledger) -> Iterator[Violation]:
    """Who has to give up which message follows from the filters of the durable consumers."""
    wanted = {
        (consumer.name, poison.sequence): poison
        for poison in ledger.poison
        for consumer in evidence.consumers
        if matches(consumer.subject, poison.subject)
    }
    found = Counter((letter.consumer, letter.sequence) for letter in evidence.dead)
    for key, poison in wanted.items():
        if found[key] != 1:
            what = f"{poison.subject} at {key[1]} ({poison.flaw}) is {found[key]} times in the dead letters of {key[0]}"
            yield Violation(LETTER, poison.subject.split(".")[2], what)
    subjects = {message.sequence: message.subject for message in evidence.stream}
    for letter in evidence.dead:
        if (letter.consumer, letter.sequence) not in wanted:
            subject = subjects.get(letter.sequence, "?")
            what = f"{letter.consumer} gave up {subject} at {letter.sequence}: {letter.error}"
            yield Violation(LETTER, (subject.split(".") + ["?"] * 3)[2], what)


def matches(pattern: str, subject: str) -> bool:
    """Whether a consumer with this filter gets messages on this subject."""
    return Subscription("any", pattern, _nobody).matches(subject)


async def _nobody(_delivery: object) -> None:
    """Never called."""
