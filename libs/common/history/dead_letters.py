"""Dead letters: events that a consumer could not handle, and another chance for them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js import JetStreamContext

from libs.common.history.errors import EventsUnavailableError, NoSuchDeadLetterError
from libs.common.history.query import type_matches
from libs.common.history.reader import Progress, StreamReader
from libs.common.history.recorded import UNREADABLE, Recorded, iso
from libs.common.history.redaction import readable_text
from libs.common.messaging import dead_letter
from libs.common.messaging.redrive import redrive_subject
from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM

# Longer than a handler may take.
REDRIVE_TIMEOUT_S = 150.0
_CONSUMER = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class DeadLetterQuery:
    """Which dead letters. `type` is a full type or a run of its parts."""

    service: str | None = None
    environment: str | None = None
    type: str | None = None

    @property
    def subject(self) -> str:
        """The part that the server filters."""
        service = self.service or "*"
        return f"dlq.{service}.devpocket.*.{self.environment}.>" if self.environment else f"dlq.{service}.>"

    def matches(self, letter: DeadLetter) -> bool:
        """The part that the server cannot filter."""
        return self.type is None or type_matches(letter.type, self.type)


@dataclass(frozen=True)
class DeadLetter:
    """One of them; `recorded` is the message in the dead-letter stream."""

    recorded: Recorded

    @property
    def number(self) -> int:
        """Its place in the dead-letter stream, by which people name it."""
        return self.recorded.stored_sequence

    @property
    def service(self) -> str:
        """Whose consumer gave it up."""
        tokens = self.recorded.subject.split(".")
        return tokens[1] if len(tokens) > 1 else "?"

    @property
    def consumer(self) -> str:
        """The durable consumer, e.g. `envs-runtime`."""
        return self.recorded.headers.get(dead_letter.CONSUMER, "")

    @property
    def subject(self) -> str:
        """The subject of the event."""
        named = self.recorded.headers.get(dead_letter.ORIGINAL_SUBJECT)
        return named or ".".join(self.recorded.subject.split(".")[2:])

    @property
    def type(self) -> str:
        """The event's type; what its subject suggests when it cannot be read."""
        if self.recorded.type != UNREADABLE:
            return self.recorded.type
        tokens = self.subject.split(".")
        return f"devpocket.{tokens[1]}.{tokens[3]}.v1" if len(tokens) == 4 else UNREADABLE

    @property
    def original_sequence(self) -> int | None:
        """Where the event stands in the event stream."""
        return _number(self.recorded.headers.get(dead_letter.ORIGINAL_SEQUENCE))

    @property
    def truncated_from(self) -> int | None:
        """How many bytes the event has when the dead letter holds only the first of them."""
        return _number(self.recorded.headers.get(dead_letter.TRUNCATED_FROM))

    @property
    def error(self) -> str:
        """Type and message of the last failure."""
        headers = self.recorded.headers
        return f"{headers.get(dead_letter.ERROR_TYPE, '?')}: {headers.get(dead_letter.ERROR_MESSAGE, '')}"

    def as_json(self) -> dict[str, Any]:
        """For programs; without the payload."""
        headers = self.recorded.headers
        return {
            "id": self.number,
            "time": iso(self.recorded.stored_at),
            "service": self.service,
            "consumer": self.consumer,
            "subject": self.subject,
            "type": self.type,
            "event_id": self.recorded.id,
            "original_sequence": self.original_sequence,
            "deliveries": _number(headers.get(dead_letter.DELIVERIES)),
            "error_type": headers.get(dead_letter.ERROR_TYPE),
            "error_message": headers.get(dead_letter.ERROR_MESSAGE),
            "truncated_from_bytes": self.truncated_from,
        }

    def in_full(self) -> dict[str, Any]:
        """With headers and payload, which is `event` when it can be read, else `text`; without secrets."""
        envelope = self.recorded.envelope
        shown = self.recorded.as_json()
        shown.pop("sequence")
        return {
            **self.as_json(),
            "headers": dict(self.recorded.headers),
            "event": shown if envelope is not None else None,
            "text": readable_text(self.recorded.payload) if envelope is None else None,
        }


@dataclass(frozen=True, slots=True)
class Redriven:
    """How it went. `code` is stable: `handled`, `failed`, `no_replica`, `lost` (the event is nowhere any more)."""

    letter: DeadLetter
    code: str
    message: str = ""
    error_type: str | None = None

    @property
    def handled(self) -> bool:
        """Whether the event is handled and the dead letter gone."""
        return self.code == "handled"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "id": self.letter.number,
            "handled": self.handled,
            "code": self.code,
            "error_type": self.error_type,
            "message": self.message,
        }


class DeadLetters:
    """The dead-letter stream. Everything raises EventsUnavailableError."""

    def __init__(self, js: JetStreamContext, *, timeout_s: float = REDRIVE_TIMEOUT_S) -> None:
        self._js = js
        self._reader = StreamReader(js)
        self._timeout_s = timeout_s

    async def find(
        self, query: DeadLetterQuery, *, after: int | None = None, progress: Progress | None = None
    ) -> AsyncGenerator[DeadLetter]:
        """Oldest first, those with a number above `after`."""
        async for item in self._reader.read(DEAD_LETTER_STREAM, query.subject, after_sequence=after, progress=progress):
            letter = DeadLetter(item)
            if query.matches(letter):
                yield letter

    async def get(self, number: int) -> DeadLetter:
        """By its number. Raises NoSuchDeadLetterError."""
        item = await self._reader.at(DEAD_LETTER_STREAM, number)
        if item is None:
            raise NoSuchDeadLetterError(number)
        return DeadLetter(item)

    async def redrive(self, letter: DeadLetter) -> Redriven:
        """Have a replica of its service handle it now; then it is deleted, else it stays."""
        if not _CONSUMER.fullmatch(letter.consumer):
            return Redriven(letter, "failed", "the dead letter does not say which consumer it belongs to")
        payload = await self._payload(letter)
        if payload is None:
            return Redriven(
                letter,
                "lost",
                "the dead letter holds only the beginning of the event, and the event stream has it no more",
            )
        outcome = await self._ask(letter, payload)
        if outcome.handled:
            await self._delete(letter)
        return outcome

    async def _payload(self, letter: DeadLetter) -> bytes | None:
        """All of the event, from the event stream when it was too large for a dead letter."""
        if letter.truncated_from is None:
            return letter.recorded.payload
        if letter.original_sequence is None:
            return None
        original = await self._reader.at(EVENTS_STREAM, letter.original_sequence)
        if original is None or original.subject != letter.subject:
            return None
        return original.payload if original.payload.startswith(letter.recorded.payload) else None

    async def _ask(self, letter: DeadLetter, payload: bytes) -> Redriven:
        headers = dict(letter.recorded.headers)
        try:
            answer = await self._js._nc.request(
                redrive_subject(letter.consumer), payload, timeout=self._timeout_s, headers=headers
            )
        except NoRespondersError:
            return Redriven(letter, "no_replica", f"no replica of {letter.service} is running; the dead letter stays")
        except TimeoutError:
            return Redriven(letter, "failed", f"no answer within {self._timeout_s:g} s; the dead letter stays")
        except (NatsError, OSError, ValueError) as error:
            raise EventsUnavailableError(f"redriving failed: {error or type(error).__name__}") from error
        return _outcome(letter, answer.data)

    async def _delete(self, letter: DeadLetter) -> None:
        try:
            await self._js.delete_msg(DEAD_LETTER_STREAM, letter.number)
        except (TimeoutError, NatsError, OSError) as error:
            raise EventsUnavailableError(
                f"dead letter {letter.number} was handled but could not be deleted: {error or type(error).__name__}"
            ) from error


def _outcome(letter: DeadLetter, answer: bytes) -> Redriven:
    try:
        said = json.loads(answer)
        if said["ok"] is True:
            return Redriven(letter, "handled")
        return Redriven(letter, "failed", str(said.get("message") or ""), str(said.get("error_type") or "Error"))
    except (ValueError, TypeError, KeyError):
        return Redriven(letter, "failed", f"{letter.service} gave an answer that cannot be understood")


def _number(text: str | None) -> int | None:
    return int(text[:18]) if text is not None and text.isascii() and text.isdigit() else None
