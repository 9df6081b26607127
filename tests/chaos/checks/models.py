"""Read models against the events they are made of: each holds what the newest event says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.chaos.evidence import Document, Evidence, Message
from tests.chaos.ledger import DRIFT, Ledger, Violation

_STATE_OF_USER = {"user.registered", "user.plan_changed", "user.updated"}


def models(evidence: Evidence, ledger: Ledger) -> Iterator[Violation]:
    """The orchestrator's wishes, the terminal's environments, the users that envs knows."""
    for environment_id in evidence.documents("envs", "environments"):
        events = evidence.about(environment_id, "env")
        wish = _newest([message for message in events if "desired" in message.data])
        status = _newest([message for message in events if "status" in message.data])
        yield from _compare("orchestrator", "workspaces", environment_id, evidence, wish, _WORKSPACE)
        yield from _compare("terminal", "environments", environment_id, evidence, wish, _TERMINAL_WISH)
        yield from _compare("terminal", "environments", environment_id, evidence, status, _TERMINAL_STATUS)
    for user_id in evidence.documents("auth", "users"):
        events = evidence.about(user_id, "user")
        state = _newest([message for message in events if message.name in _STATE_OF_USER])
        yield from _compare("envs", "users", user_id, evidence, state, _USER)


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


# Field of the document: field of the event.
_WORKSPACE = _same("desired", "generation", "version", "name")
_TERMINAL_WISH = {"desired": "desired", "wish_version": "version", "wish_generation": "generation"}
_TERMINAL_STATUS = {"status": "status", "status_version": "version", "status_generation": "generation"}
_USER = _same("plan", "is_active", "is_verified", "version")


def _newest(messages: list[Message]) -> Message | None:
    return max(messages, key=lambda message: int(message.data["version"]), default=None)


def _compare(
    service: str,
    collection: str,
    key: str,
    evidence: Evidence,
    message: Message | None,
    fields: Mapping[str, str],
) -> Iterator[Violation]:
    if message is None:
        return
    document: Document | None = evidence.documents(service, collection).get(key)
    if document is None:
        yield Violation(DRIFT, key, f"is not in {service}.{collection}, though {message.name} is in the stream")
        return
    for stored, told in fields.items():
        if document.get(stored) != message.data[told]:
            what = (
                f"{service}.{collection}.{stored} is {document.get(stored)!r}, the stream says {message.data[told]!r}"
            )
            yield Violation(DRIFT, key, what)
