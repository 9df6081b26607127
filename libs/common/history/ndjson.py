"""A slice of the stream as text: one JSON object per line. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from libs.common.history.errors import BadSliceError
from libs.common.history.recorded import IMPORTED_STORED_AT, MESSAGE_ID, Recorded, iso, parse_object
from libs.common.history.redaction import without_secrets
from libs.common.messaging.subscriptions import IMPORTED_SEQUENCE

_RAW = "raw"
_OURS = frozenset({IMPORTED_SEQUENCE.lower(), IMPORTED_STORED_AT.lower(), "nats-expected-stream"})
_SUBJECT = re.compile(r"devpocket(\.[^\s.*>]+)+")
_HEADER_NAME = re.compile(r"[!-9;-~]{1,200}")
_LARGEST_SEQUENCE = 10**18


def to_line(item: Recorded, *, hide_secrets: bool = False) -> str:
    """Without a line break at the end. `hide_secrets` also withholds garbage that may hold variables."""
    line = {
        "sequence": item.sequence,
        "subject": item.subject,
        "stored_at": iso(item.stored_at),
        "headers": _exported(item),
        "event": _event(item, hide_secrets=hide_secrets),
    }
    return json.dumps(line, separators=(",", ":"))


def _exported(item: Recorded) -> dict[str, str]:
    """Without what an import puts there again, so that the export of an import is the same file."""
    named = {item.id, item.name_of_the_nameless}
    return {
        name: value
        for name, value in sorted(item.headers.items())
        if name.lower() not in _OURS and not (name.lower() == MESSAGE_ID.lower() and value in named)
    }


def _event(item: Recorded, *, hide_secrets: bool) -> Any:
    # An object that looks like the stand-in for bytes is told apart by travelling as bytes.
    if item.envelope is not None and item.envelope.keys() != {_RAW}:
        return without_secrets(item.envelope) if hide_secrets else item.envelope
    payload = item.payload
    if hide_secrets and b"variables" in payload:
        payload = b"(withheld: it may hold variables)"
    return {_RAW: base64.b64encode(payload).decode()}


def from_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, Recorded]]:
    """Line numbers, from 1, and what they hold; empty lines are skipped. Raises BadSliceError with the number."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, from_line(line)
            except ValueError as error:
                raise BadSliceError(f"line {number}: {error}") from error


def from_line(line: bytes) -> Recorded:
    """One exported event. Raises ValueError, whose text says what is wrong."""
    value = parse_object(line)
    sequence = value.get("sequence")
    if not isinstance(sequence, int) or isinstance(sequence, bool) or not 0 < sequence < _LARGEST_SEQUENCE:
        raise ValueError("`sequence` is no place in a stream")
    subject = value.get("subject")
    if not isinstance(subject, str) or _SUBJECT.fullmatch(subject) is None:
        raise ValueError("`subject` is no subject of events (devpocket.<aggregate>.<id>.<event>)")
    return Recorded(
        sequence=sequence,
        subject=subject,
        stored_at=_stored_at(value.get("stored_at")),
        payload=_payload(value.get("event")),
        headers=_headers(value.get("headers", {})),
        stored_sequence=sequence,
    )


def _stored_at(value: Any) -> datetime:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise ValueError("`stored_at` is no time") from error
    if time.tzinfo is None:
        raise ValueError("`stored_at` has no time zone")
    return time


def _payload(value: Any) -> bytes:
    if not isinstance(value, dict):
        raise ValueError("`event` is no object")
    if value.keys() != {_RAW}:
        return json.dumps(value, separators=(",", ":")).encode()
    try:
        return base64.b64decode(value[_RAW], validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError("`event.raw` is not base64") from error


def _headers(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ValueError("`headers` is no object")
    for name, text in value.items():
        if _HEADER_NAME.fullmatch(name) is None:
            raise ValueError(f"`headers` has a name that is none: {name[:40]!r}")
        if not isinstance(text, str) or any(character in text for character in "\r\n\0"):
            raise ValueError(f"`headers` has a value for {name} that is not one line of text")
    return value
