"""The root of every error we raise on purpose. Adapters map `kind` to HTTP codes or to ack/nak, each in one place."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class ErrorKind(StrEnum):
    """What went wrong, in terms of the caller."""

    BAD_REQUEST = "bad_request"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    UNPROCESSABLE = "unprocessable"
    TOO_MANY = "too_many"
    UNAVAILABLE = "unavailable"


class DevPocketError(Exception):
    """An expected failure.

    Subclasses set `kind` (who has to do something about it) and `code` (stable snake_case, part of the API).
    The message is a sentence for people: it says what is wrong and, where possible, what to do.
    `headers` are added to the HTTP answer, e.g. `Retry-After`. `field` names the part of the request that was refused,
    e.g. `body.region`, for errors that a form can show beside it.
    """

    kind: ErrorKind = ErrorKind.BAD_REQUEST
    code: str = "bad_request"
    field: str | None = None

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = dict(headers or {})


class UnauthenticatedError(DevPocketError):
    """No credentials, or none that are valid now."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "unauthenticated"

    def __init__(self, message: str = "Could not validate credentials") -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class ForbiddenError(DevPocketError):
    """Known who you are, but you may not do this."""

    kind = ErrorKind.FORBIDDEN
    code = "forbidden"


class UnavailableError(DevPocketError):
    """A part this service depends on is away; the same request may work later."""

    kind = ErrorKind.UNAVAILABLE
    code = "unavailable"


class TemporaryError(Exception):
    """An event cannot be handled yet; deliver it again after `delay_s` seconds (None: exponential backoff)."""

    def __init__(self, message: str, *, delay_s: float | None = None) -> None:
        super().__init__(message)
        self.delay_s = delay_s


class PermanentError(Exception):
    """An event can never be handled; it goes to the dead letters at once."""
