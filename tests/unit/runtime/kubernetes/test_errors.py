"""What answers of the API mean to the port."""

from __future__ import annotations

import json

import pytest

from libs.runtime.kubernetes.errors import ApiUnreachableError, api_error, driver_error
from libs.runtime.port import DriverError, RuntimeUnavailableError, WorkspaceRejectedError


def said(status: int, reason: str = "", message: str = "", **details: object) -> DriverError:
    """The port's error for such an answer."""
    body = json.dumps({"kind": "Status", "reason": reason, "message": message, "details": details, "code": status})
    return driver_error(api_error(status, body.encode()))


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (said(401), RuntimeUnavailableError, "ClusterUnauthorized"),
        (said(403, "Forbidden", 'User "x" cannot create resource "pods"'), RuntimeUnavailableError, "ClusterForbidden"),
        (
            said(403, "Forbidden", "exceeded quota: devpocket"),
            WorkspaceRejectedError,
            "QuotaExceeded",
        ),
        (said(403, "Forbidden", "violates PodSecurity"), WorkspaceRejectedError, "PodSecurityViolation"),
        (
            said(403, "Forbidden", "", causes=[{"reason": "NamespaceTerminating"}]),
            *(RuntimeUnavailableError, "NamespaceTerminating"),
        ),
        (said(422, "Invalid", "spec.containers[0].image: Required"), WorkspaceRejectedError, "SpecInvalid"),
        (said(429), RuntimeUnavailableError, "ClusterOverloaded"),
        (said(503), RuntimeUnavailableError, "ClusterError"),
        (driver_error(ApiUnreachableError("refused")), RuntimeUnavailableError, "ClusterUnreachable"),
    ],
)
def test_rejected_or_unavailable(error: DriverError, kind: type[DriverError], reason: str) -> None:
    assert isinstance(error, kind)
    assert error.reason == reason


def test_a_proxys_words_are_kept() -> None:
    error = api_error(502, b"<html>bad gateway</html>", "7")
    assert "bad gateway" in error.message
    assert error.retry_after_s == 7.0


def test_the_apis_own_words_are_beside_ours() -> None:
    text = str(said(422, "Invalid", "spec.containers[0].image: Required value"))
    assert text.startswith("The cluster does not accept the workspace")
    assert "Required value" in text
