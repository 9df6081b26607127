"""Who asked for what is being done now: carried through calls by a context variable, written into every event."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Cause:
    """`correlation_id`: the request or job that started it all. `causation_id`: the event that led to this step.

    `actor`: a user id, or the name of a service that acts on its own. `address`: the network address a person calls
    from.
    """

    correlation_id: str | None = None
    causation_id: str | None = None
    actor: str | None = None
    address: str | None = None


_current: ContextVar[Cause] = ContextVar("devpocket_cause")
_NOTHING = Cause()


def current_cause() -> Cause:
    """The cause of the work going on in this task."""
    return _current.get(_NOTHING)


@contextmanager
def acting(cause: Cause) -> Iterator[Cause]:
    """Make `cause` current for the block."""
    token = _current.set(cause)
    try:
        yield cause
    finally:
        _current.reset(token)


def set_actor(actor: str) -> None:
    """Name the actor once it is known, e.g. after the token was checked."""
    cause = current_cause()
    _current.set(replace(cause, actor=actor))
