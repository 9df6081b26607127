"""Requests to an API server are named by what they are for, not by whose they are."""

from __future__ import annotations

import pytest

from libs.runtime.kubernetes.api import path_of
from libs.runtime.tracing import _template


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (path_of("namespaces"), "/api/v1/namespaces"),
        (path_of("namespaces", name="u-1"), "/api/v1/namespaces/{namespace}"),
        (path_of("pods"), "/api/v1/pods"),
        (path_of("pods", "u-1"), "/api/v1/namespaces/{namespace}/pods"),
        (f"{path_of('pods', 'u-1', 'env-1')}/exec", "/api/v1/namespaces/{namespace}/pods/{name}/exec"),
        (
            path_of("networkpolicies", "u-1", "deny"),
            "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies/{name}",
        ),
        ("/version", "/version"),
    ],
)
def test_names_in_paths_are_left_out(path: str, expected: str) -> None:
    assert _template(path) == expected
