"""What the API answers when it does not do what it was asked, and what that means to the runtime port."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from libs.runtime.port import DriverError, RuntimeUnavailableError, WorkspaceRejectedError

_NAMESPACE_TERMINATING = "NamespaceTerminating"


@dataclass(eq=False)
class ApiError(Exception):
    """An answer of 400 or above. `reason` and `message` are the API's own; `retry_after_s` is what it asked for."""

    status: int
    reason: str = ""
    message: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return f"{self.status} {self.reason}: {self.message}"

    @property
    def is_namespace_terminating(self) -> bool:
        """The namespace is on its way out, so nothing can be made in it."""
        causes = self.details.get("causes") or []
        named = any(cause.get("reason") == _NAMESPACE_TERMINATING for cause in causes)
        return self.status == 403 and (named or "because it is being terminated" in self.message)

    @property
    def is_namespace_gone(self) -> bool:
        """The namespace is on its way out, or not there any more."""
        return self.is_namespace_terminating or (self.status == 404 and self.details.get("kind") == "namespaces")

    @property
    def is_quota_exceeded(self) -> bool:
        """The namespace's quota has no room for this."""
        return self.status == 403 and "exceeded quota" in self.message

    @property
    def is_not_ready_yet(self) -> bool:
        """A new namespace whose controllers have not seen its quota or account yet: true for a moment only."""
        unready = ("status unknown for quota", "error looking up service account")
        return self.status == 403 and any(words in self.message for words in unready)


class ApiUnreachableError(Exception):
    """No answer: the connection was refused, broke, or took too long."""


def api_error(status: int, body: bytes, retry_after: str | None = None) -> ApiError:
    """The error in an answer. Proxies in front of an API server answer in words of their own, which are kept."""
    wait = float(retry_after) if retry_after is not None and retry_after.isdigit() else None
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        return ApiError(status, message=body.decode("utf-8", "replace").strip()[:500], retry_after_s=wait)
    details = said.get("details") or {}
    if wait is None and details.get("retryAfterSeconds"):
        wait = float(details["retryAfterSeconds"])
    return ApiError(status, said.get("reason") or "", said.get("message") or "", details, wait)


def driver_error(error: ApiError | ApiUnreachableError) -> DriverError:
    """The port's word for it: rejected when the same call will fail again, unavailable when it may work later."""
    if isinstance(error, ApiUnreachableError):
        return RuntimeUnavailableError(f"The cluster cannot be reached: {error}", reason="ClusterUnreachable")
    said = error.message or error.reason or f"HTTP {error.status}"
    if error.status == 401:
        return RuntimeUnavailableError(
            f"The cluster does not accept our credentials: {said}", reason="ClusterUnauthorized"
        )
    if error.status == 403:
        return _forbidden(error, said)
    if error.status in (400, 413, 415, 422):
        return WorkspaceRejectedError(f"The cluster does not accept the workspace: {said}", reason="SpecInvalid")
    if error.status == 429:
        return RuntimeUnavailableError(f"The cluster is overloaded: {said}", reason="ClusterOverloaded")
    return RuntimeUnavailableError(f"The cluster answered {error.status}: {said}", reason="ClusterError")


def _forbidden(error: ApiError, said: str) -> DriverError:
    if error.is_quota_exceeded:
        return WorkspaceRejectedError(
            f"Your environments use all that is set aside for them; stop or delete one. The cluster says: {said}",
            reason="QuotaExceeded",
        )
    if error.is_namespace_terminating:
        return RuntimeUnavailableError(
            "Your space in the cluster is being cleaned up after its last environment was deleted; it is made anew "
            f"shortly. The cluster says: {said}",
            reason="NamespaceTerminating",
        )
    if "violates PodSecurity" in said:
        return WorkspaceRejectedError(
            f"The cluster's security rules refuse the workspace: {said}", reason="PodSecurityViolation"
        )
    # Rights are missing, or an admission plugin refuses: an operator can change that without a new wish of the user.
    return RuntimeUnavailableError(f"The cluster forbids it: {said}", reason="ClusterForbidden")
