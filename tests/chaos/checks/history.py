"""The stream holds the history of each document: nothing missing, nothing twice, in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from tests.chaos.evidence import Document, Evidence, Message
from tests.chaos.ledger import DOUBLED, LOST, STUCK, Ledger, Violation

_WISHES = {f"env.{name}" for name in ("created", "start_requested", "stop_requested", "restart_requested")} | {
    "env.delete_requested"
}
_CHANGED = "env.status_changed"


def histories(evidence: Evidence, ledger: Ledger) -> Iterator[Violation]:
    """Document against events, for environments, users, sessions and terminal sessions."""
    for environment_id, document in evidence.documents("envs", "environments").items():
        events = evidence.about(environment_id, "env")
        yield from _generations(environment_id, document, events)
        yield from _statuses(environment_id, document, events)
        yield from _order(environment_id, events)
    known = evidence.documents("envs", "environments")
    for message in evidence.events:
        if message.name in _WISHES and message.event is not None and message.event.subject not in known:
            what = f"{message.name} at {message.sequence} is about an environment that is not in the database"
            yield Violation(LOST, message.event.subject, what)
    yield from _users(evidence)
    yield from _terminals(evidence)
    yield from _pending(evidence)


def identities(evidence: Evidence, ledger: Ledger) -> Iterator[Violation]:
    """No event is in the stream twice, and each travels under its own id."""
    first: dict[str, int] = {}
    for message in evidence.events:
        assert message.event is not None
        about, number = message.event.subject, message.event.id
        if number in first:
            what = f"{message.name} {number} is in the stream at {first[number]} and at {message.sequence}"
            yield Violation(DOUBLED, about, what)
        first.setdefault(number, message.sequence)


def _generations(environment_id: str, document: Document, events: list[Message]) -> Iterator[Violation]:
    found = Counter(int(message.data["generation"]) for message in events if message.name in _WISHES)
    for generation in range(1, document["generation"] + 1):
        if found[generation] == 0:
            yield Violation(LOST, environment_id, f"the wish of generation {generation} is not in the stream")
        elif found[generation] > 1:
            what = f"generation {generation} has {found[generation]} wishes in the stream"
            yield Violation(DOUBLED, environment_id, what)
    for generation in found:
        if generation > document["generation"]:
            what = f"generation {generation} is in the stream, the database is at {document['generation']}"
            yield Violation(LOST, environment_id, what)


def _statuses(environment_id: str, document: Document, events: list[Message]) -> Iterator[Violation]:
    status = "creating"
    for message in events:
        if message.name == _CHANGED:
            if message.data["previous"] != status:
                what = f"at {message.sequence} it changes from {message.data['previous']}, but it was {status}"
                yield Violation(LOST, environment_id, what)
            status = message.data["status"]
    if status != document["status"]:
        what = f"the stream ends with {status}, the database says {document['status']}"
        yield Violation(LOST, environment_id, what)


def _order(environment_id: str, events: list[Message]) -> Iterator[Violation]:
    versions = [(int(message.data["version"]), message.sequence) for message in events]
    for (before, _), (version, sequence) in pairwise(versions):
        if version < before:
            yield Violation(LOST, environment_id, f"out of order: version {version} at {sequence} after {before}")


def _users(evidence: Evidence) -> Iterator[Violation]:
    sessions = evidence.documents("auth", "sessions")
    begun = Counter(message.data["session_id"] for message in evidence.events if message.name == "user.logged_in")
    ended = {
        session_id
        for message in evidence.events
        if message.name == "user.sessions_revoked"
        for session_id in message.data["session_ids"]
    }
    for user_id in evidence.documents("auth", "users"):
        registered = [message for message in evidence.about(user_id, "user") if message.name == "user.registered"]
        if len(registered) != 1:
            kind = LOST if not registered else DOUBLED
            yield Violation(kind, user_id, f"user.registered is in the stream {len(registered)} times")
    for session_id, count in begun.items():
        if count > 1:
            yield Violation(DOUBLED, session_id, f"user.logged_in is in the stream {count} times")
    for session_id, session in sessions.items():
        if session.get("revoked_at") is not None and session_id not in ended:
            yield Violation(LOST, session_id, "was revoked, no event says so")


def _terminals(evidence: Evidence) -> Iterator[Violation]:
    named = Counter((message.name, message.data.get("session_id")) for message in evidence.events)
    for session_id, session in evidence.documents("terminal", "sessions").items():
        wanted = {"terminal.session_opened": 1, "terminal.session_closed": int(session["state"] == "closed")}
        for name, number in wanted.items():
            found = named[name, session_id]
            if found != number:
                kind = LOST if found < number else DOUBLED
                yield Violation(
                    kind, session["environment_id"], f"{name} of {session_id} is in the stream {found} times"
                )


def _pending(evidence: Evidence) -> Iterator[Violation]:
    for service, collections in evidence.databases.items():
        for collection, documents in collections.items():
            for document in documents:
                if document.get("pending_events"):
                    names = [entry["event"]["type"] for entry in document["pending_events"]]
                    yield Violation(STUCK, str(document["_id"]), f"{service}.{collection} has unpublished {names}")
