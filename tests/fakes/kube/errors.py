"""`metav1.Status` failures with the reasons, words and details of the real API server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.fakes.kube.resources import Resource

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cause:
    """One field that is wrong: the path, the stable reason and the sentence."""

    field: str
    reason: str
    message: str

    def text(self) -> str:
        """As it shows in the message of an Invalid status."""
        return f"{self.field}: {self.message}"


def required(field: str, detail: str = "") -> Cause:
    """A missing value."""
    return Cause(field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")


def invalid_value(field: str, value: object, detail: str) -> Cause:
    """A value that is not allowed."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {detail}")


def unsupported(field: str, value: object, allowed: Sequence[str]) -> Cause:
    """A value outside its enumeration."""
    names = ", ".join(f'"{name}"' for name in sorted(allowed))
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {_shown(value)}: supported values: {names}")


def duplicate(field: str, value: object) -> Cause:
    """A value that must be unique."""
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {_shown(value)}")


def not_found_value(field: str, value: object) -> Cause:
    """A reference to something that is not in the object."""
    return Cause(field, "FieldValueNotFound", f"Not found: {_shown(value)}")


def forbidden_field(field: str, detail: str) -> Cause:
    """A field that must not be set or changed."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


class StatusError(Exception):
    """An answer that is a failure; `headers` travel with it."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Obj | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.details, self.headers = code, reason, details, headers or {}

    def status(self) -> Obj:
        """The body."""
        body: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": str(self)}
        body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        return body | {"code": self.code}


def details_of(resource: Resource, name: str, **more: Any) -> Obj:
    """`details` of a status about one object."""
    details: Obj = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    return details | {"kind": resource.plural} | more


def qualified(resource: Resource) -> str:
    """`pods`, `networkpolicies.networking.k8s.io`."""
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def not_found(resource: Resource, name: str) -> StatusError:
    """404."""
    return StatusError(404, "NotFound", f'{qualified(resource)} "{name}" not found', details=details_of(resource, name))


def already_exists(resource: Resource, name: str) -> StatusError:
    """409 at create."""
    return StatusError(
        409, "AlreadyExists", f'{qualified(resource)} "{name}" already exists', details=details_of(resource, name)
    )


def conflict(resource: Resource, name: str, why: str = "") -> StatusError:
    """409 at update and delete."""
    why = why or ("the object has been modified; please apply your changes to the latest version and try again")
    return StatusError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {qualified(resource)} "{name}": {why}',
        details=details_of(resource, name),
    )


def invalid(resource: Resource, name: str, causes: Sequence[Cause]) -> StatusError:
    """422 with one cause for each wrong field."""
    texts = [cause.text() for cause in causes]
    listed = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    details: Obj = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    details["kind"] = resource.kind
    details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    return StatusError(422, "Invalid", f'{kind} "{name}" is invalid: {listed}', details=details)


def forbidden(resource: Resource, name: str, why: str, causes: list[Obj] | None = None) -> StatusError:
    """403: access rules, admission, quota."""
    subject = f'{qualified(resource)} "{name}"' if name else qualified(resource)
    details = details_of(resource, name)
    if causes:
        details["causes"] = causes
    return StatusError(403, "Forbidden", f"{subject} is forbidden: {why}", details=details)


def bad_request(message: str) -> StatusError:
    """400."""
    return StatusError(400, "BadRequest", message)


def unauthorized() -> StatusError:
    """401."""
    return StatusError(401, "Unauthorized", "Unauthorized")


def expired(message: str) -> StatusError:
    """410."""
    return StatusError(410, "Expired", message)


def unknown_path() -> StatusError:
    """404 for a resource that the server does not have."""
    return StatusError(404, "NotFound", "the server could not find the requested resource", details={})


def internal(message: str) -> StatusError:
    """500."""
    return StatusError(
        500,
        "InternalError",
        f"Internal error occurred: {message}",
        details={"causes": [{"message": message}]},
    )


def unavailable(message: str = "the server is currently unable to handle the request") -> StatusError:
    """503."""
    return StatusError(503, "ServiceUnavailable", message)


def too_many_requests(retry_after: int = 1) -> StatusError:
    """429 of priority and fairness."""
    return StatusError(
        429,
        "TooManyRequests",
        "too many requests, please try again later",
        details={"retryAfterSeconds": retry_after},
        headers={"Retry-After": str(retry_after)},
    )
