"""One message of the event stream as it was recorded. Garbage is in the stream too, and shows as such. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NoReturn

from pydantic import ValidationError

from libs.common.contracts.events import Event, EventData, UnknownEventError
from libs.common.history.redaction import without_secrets
from libs.common.messaging.subscriptions import IMPORTED_SEQUENCE

IMPORTED_STORED_AT = "Devpocket-Imported-Stored-At"
MESSAGE_ID = "Nats-Msg-Id"
UNREADABLE = "unreadable"
_ONE_WORD = re.compile(r"[!-~]{1,200}")


@dataclass(frozen=True)
class Recorded:
    """`sequence` and `stored_at` say where and when it was stored first; for an imported event that was elsewhere.

    `stored_sequence` is its place in the stream it was read from.
    """

    sequence: int
    subject: str
    stored_at: datetime
    payload: bytes
    headers: Mapping[str, str]
    stored_sequence: int

    @property
    def is_imported(self) -> bool:
        """Whether it was brought in from another system."""
        return IMPORTED_SEQUENCE in self.headers

    @cached_property
    def envelope(self) -> dict[str, Any] | None:
        """The JSON object in it, whatever that holds; None when it is none."""
        try:
            return parse_object(self.payload)
        except ValueError:
            return None

    @cached_property
    def event(self) -> Event | None:
        """None when it is no CloudEvents envelope; `problem` says why."""
        if self.envelope is None:
            return None
        try:
            return Event.model_validate(self.envelope)
        except ValidationError:
            return None

    @cached_property
    def data(self) -> EventData | None:
        """Typed data; None for a type of another version, or data that do not fit their type."""
        if self.event is None:
            return None
        try:
            return self.event.payload()
        except UnknownEventError:
            return None

    @cached_property
    def problem(self) -> str | None:
        """Why it cannot be handled as an event; None when all is well."""
        try:
            envelope = parse_object(self.payload)
            event = Event.model_validate(envelope)
            event.payload()
        except UnknownEventError as error:
            return str(error)
        except ValidationError as error:
            detail = error.errors(include_url=False, include_input=False)[0]
            return f"no CloudEvents envelope: {'.'.join(map(str, detail['loc']))}: {detail['msg']}"
        except ValueError as error:
            return str(error)
        if event.nats_subject != self.subject:
            return f"the envelope belongs on {event.nats_subject}, not on {self.subject}"
        return None

    @property
    def id(self) -> str | None:
        """The event's id; None for garbage without one."""
        found = (self.envelope or {}).get("id")
        return found if isinstance(found, str) and found else None

    @property
    def identity(self) -> str:
        """The same for the same event wherever it is stored: its id, or what stands in for one. Fits into a header."""
        found = self.id or self.headers.get(MESSAGE_ID) or self.name_of_the_nameless
        if _ONE_WORD.fullmatch(found):
            return found
        return f"sha256-{hashlib.sha256(found.encode(errors='backslashreplace')).hexdigest()}"

    @property
    def name_of_the_nameless(self) -> str:
        """What tells an event without an id from others: no other was stored first at this place on this subject."""
        return f"sequence-{self.sequence}:{self.subject}"

    @property
    def time(self) -> datetime:
        """When it happened; when it was stored if it does not say."""
        return self.event.time if self.event is not None and self.event.time.tzinfo else self.stored_at

    @property
    def about(self) -> str | None:
        """The aggregate's id: the third token of the subject."""
        tokens = self.subject.split(".")
        return tokens[2] if len(tokens) > 2 else None

    @property
    def type(self) -> str:
        """The full type of the envelope, `unreadable` for garbage."""
        found = (self.envelope or {}).get("type")
        return found if isinstance(found, str) else UNREADABLE

    def as_json(self) -> dict[str, Any]:
        """The envelope without secrets, and its place; what cannot be read shows as such."""
        if self.envelope is None:
            body = {"type": UNREADABLE, "subject": self.subject, "error": self.problem}
        else:
            body = without_secrets(self.envelope)
        return {**body, "sequence": self.sequence}


def recorded(
    *, subject: str, payload: bytes, headers: Mapping[str, str], stored_sequence: int, stored_at: datetime
) -> Recorded:
    """A message of a stream; for an imported one `sequence` and `stored_at` are those it had originally."""
    sequence, at = stored_sequence, stored_at
    original = headers.get(IMPORTED_SEQUENCE)
    if original is not None and original.isascii() and original.isdigit():
        sequence = int(original[:18])
        at = _time(headers.get(IMPORTED_STORED_AT)) or stored_at
    return Recorded(sequence, subject, at, payload, headers, stored_sequence)


def in_order(events: Iterable[Recorded]) -> list[Recorded]:
    """Each event once, where it was stored first, in the order of the stream; whatever the order they come in."""
    unique: dict[str, Recorded] = {}
    for item in events:
        known = unique.get(item.identity)
        if known is None or item.sequence < known.sequence:
            unique[item.identity] = item
    return sorted(unique.values(), key=lambda item: (item.sequence, item.identity))


def parse_object(payload: bytes) -> dict[str, Any]:
    """Strict JSON. Raises ValueError, whose text says what is wrong, for anything but an object."""
    try:
        value = _DECODER.decode(payload.decode())
    except UnicodeDecodeError as error:
        raise ValueError("not JSON: not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise ValueError("not JSON: nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not an envelope: an envelope is a JSON object")
    return value


def iso(time: datetime) -> str:
    """UTC in ISO 8601 with a Z, to the microsecond."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _time(text: str | None) -> datetime | None:
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time if time.tzinfo else None
