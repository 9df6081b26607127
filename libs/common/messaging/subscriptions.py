"""What a service listens to, as data: the bus subscribes it, a redrive and a replay call the very same handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from pydantic import ValidationError

from libs.common.contracts.events import Event, EventData
from libs.common.errors import PermanentError

# On events that were brought in from another system: their place in the stream they come from.
IMPORTED_SEQUENCE = "Devpocket-Imported-Sequence"


class MalformedEventError(PermanentError):
    """The bytes are no event that anybody could handle; the text says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event as a handler gets it: envelope, typed data, and its place in the stream."""

    event: Event
    data: EventData
    sequence: int


Handler = Callable[[Delivery], Awaitable[None]]
"""Returns when the event is done. See `delivery` for what exceptions mean."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """`handle` gets every event on `subject` at least once; `purpose` names the durable consumer within its service.

    `told`: types whose handling is worth a line in the log, because it is a step that somebody waits for.
    """

    purpose: str
    subject: str
    handle: Handler
    told: Collection[type[EventData]] = ()

    def matches(self, subject: str) -> bool:
        """Whether an event on this NATS subject is meant. `*` stands for one token, a final `>` for one or more."""
        wanted, given = self.subject.split("."), subject.split(".")
        if wanted[-1] == ">":
            wanted = wanted[:-1]
            if len(given) <= len(wanted):
                return False
            given = given[: len(wanted)]
        return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))


def decoded(payload: bytes, *, subject: str, sequence: int) -> Delivery:
    """The event in a message. Raises MalformedEventError, or UnknownEventError for a type we do not know."""
    try:
        event = Event.model_validate_json(payload)
    except ValidationError as error:
        raise MalformedEventError(_complaint(error)) from error
    data = event.payload()
    if event.nats_subject != subject:
        raise MalformedEventError(f"the envelope belongs on {event.nats_subject}, not on {subject[:200]}")
    about = data.aggregate_id
    if about != event.subject:
        raise MalformedEventError(f"the envelope is about {event.subject}, the data about {about}")
    return Delivery(event, data, sequence)


def _complaint(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_input=False)[0]
    if detail["type"] == "json_invalid":
        return f"not JSON: {detail['msg'].removeprefix('Invalid JSON: ')}"
    where = ".".join(str(part) for part in detail["loc"])
    return f"not a CloudEvents envelope: {where + ': ' if where else ''}{detail['msg']}"
