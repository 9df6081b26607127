"""What can go wrong while the past is read. Each message is a sentence for whoever debugs."""

from __future__ import annotations

from libs.common.errors import DevPocketError, ErrorKind, UnavailableError


class EventsUnavailableError(UnavailableError):
    """The stream cannot be read or written; the text says why."""

    code = "events_unavailable"


class BadTimeError(DevPocketError):
    """A time that cannot be understood."""

    kind = ErrorKind.UNPROCESSABLE
    code = "bad_time"


class NoSuchEventError(DevPocketError):
    """Nothing is stored at this place, or about this environment."""

    kind = ErrorKind.NOT_FOUND
    code = "event_not_found"


class NoSuchDeadLetterError(DevPocketError):
    """No dead letter has this number."""

    kind = ErrorKind.NOT_FOUND
    code = "dead_letter_not_found"

    def __init__(self, number: int) -> None:
        super().__init__(f"There is no dead letter {number}; it may have been redriven already")


class BadSliceError(DevPocketError):
    """A file is no export of events; the text names the line."""

    kind = ErrorKind.UNPROCESSABLE
    code = "bad_slice"
