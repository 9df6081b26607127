"""Whatever is sent, the answer is one that the OpenAPI document tells of: generated requests to the whole API.

`SCHEMA_EXAMPLES=500` digs deeper, and adds what lies at the edges of each schema; `SCHEMA_PATHS=^/api/v1/auth` looks at
some paths only: `make test ARGS="tests/e2e/test_schema.py"` with them in the environment.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, Response
from schemathesis.generation.hypothesis.builder import HypothesisTestConfig, HypothesisTestMode, create_test
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.specs.openapi.schemas import OpenApiSchema

from tests.e2e.conftest import ADMIN_EMAIL, ADMIN_PASSWORD
from tests.e2e.schema.accounts import PASSWORD, Api
from tests.e2e.schema.callers import Caller
from tests.support.json_schema import complaints
from tests.support.stack import LocalStack

_DEEP = "SCHEMA_EXAMPLES" in os.environ
_EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "4"))
# For requests that end where the caller is asked for.
_FEW = 2
_ADMINS_ONLY = re.compile("/api/v1/(admin|audit|clusters|users)")
# Each of these reads the whole stream and builds a database from it.
_HEAVY = re.compile("/replays/")
# They wait for an environment or a cluster, or take equally long on purpose.
_SLOW = re.compile("/ws/tickets|/health$|/(resend|forgot)-")
# They answer HEAD as they answer GET, of which the document need not tell.
_WITH_HEAD = re.compile("/files")
_PATHS = re.compile(os.environ.get("SCHEMA_PATHS", ""))
_METHODS = {"get", "put", "post", "delete", "patch", "head", "options"}
_HALF = "\ud800"
_ANY_ID: dict[str, str] = defaultdict(lambda: "1")
_PROBLEM = "application/problem+json"
# What a stack in good health answers although it is a 5xx.
_EXPECTED_5XX = {"/api/v1/auth/google": "google_not_configured"}

pytestmark = pytest.mark.timeout(0 if _DEEP else 300)
schemathesis.openapi.format("password", st.text(max_size=60).map(PASSWORD.__add__))


def _operations(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(method, path) for path, item in document["paths"].items() for method in item]


_CONTRACT = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text())
_WANTED = [(method, path) for method, path in _operations(_CONTRACT) if _PATHS.search(path)]
_GUARDED = [(method, path) for method, path in _WANTED if "security" in _CONTRACT["paths"][path][method]]
_PUBLIC = [operation for operation in _WANTED if operation not in _GUARDED]


@pytest.fixture(scope="module")
def document(stack: LocalStack) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{stack.url}/openapi.json", timeout=60).json()
    return found


@pytest.fixture(scope="module")
def schema(document: dict[str, Any]) -> OpenApiSchema:
    found = schemathesis.openapi.from_dict(document)
    found.config.generation.update(with_security_parameters=False)
    # Methods that are not offered have a test of their own.
    found.config.phases.coverage.unexpected_methods = set()
    return found


def _caller(stack: LocalStack, plan: str | None) -> Iterator[Caller]:
    api = Api(stack.url)
    root = {"Authorization": f"Bearer {api.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD)['access_token']}"}
    caller = Caller(api, root, plan)
    caller.prepare()
    yield caller
    caller.tidy()


@pytest.fixture(scope="module")
def nobody(stack: LocalStack) -> Iterator[Caller]:
    yield from _caller(stack, None)


@pytest.fixture(scope="module")
def user(stack: LocalStack) -> Iterator[Caller]:
    yield from _caller(stack, "starter")


@pytest.fixture(scope="module")
def administrator(stack: LocalStack) -> Iterator[Caller]:
    yield from _caller(stack, "admin")


def _no_server_error(_: CheckContext, response: Response, case: Case[Any]) -> None:
    if response.status_code >= 500:
        assert (response.status_code, response.json().get("code")) == (503, _EXPECTED_5XX.get(case.path))


def _errors_are_problems(_: CheckContext, response: Response, case: Case[Any]) -> None:
    """With the id that the answer has in its headers: it leads from what a user reports to our logs."""
    assert response.headers["x-request-id"]
    if response.status_code >= 400:
        problem = response.json()
        assert response.headers["content-type"] == [_PROBLEM]
        assert (problem["status"], problem["request_id"]) == (response.status_code, response.headers["x-request-id"][0])


# Not among them, and why:
# - positive_data_acceptance: plans, quotas, taken names and cursors are not in the schema, so valid may be refused.
# - negative_data_rejection: unknown fields and parameters are ignored on purpose, so invalid may be accepted.
# - unsupported_method: below, for all methods rather than for those that a generator thinks of.
# - ignored_auth: tests/e2e/authorization tries each operation as everybody.
_CHECKS = [
    _no_server_error,
    _errors_are_problems,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


def _explore(schema: OpenApiSchema, label: tuple[str, str], caller: Caller, *, examples: int = _EXAMPLES) -> None:
    """The same requests in every run: those that the schema shows as examples, and generated ones, valid and not."""
    method, path = label
    if _HEAVY.search(path):
        examples = max(1, _EXAMPLES // 20)
    elif _SLOW.search(path):
        examples = min(examples, max(_FEW, _EXAMPLES // 10))

    def send(case: Case[Any]) -> None:
        for variant in caller.variants(case):
            variant.validate_response(caller.send(variant), checks=_CHECKS)

    quick = [HypothesisTestMode.EXAMPLES, HypothesisTestMode.FUZZING]
    create_test(
        operation=schema[path][method],
        test_func=send,
        config=HypothesisTestConfig(
            project=schema.config,
            modes=[*quick, HypothesisTestMode.COVERAGE] if _DEEP and examples > _FEW else quick,
            settings=hypothesis.settings(
                max_examples=examples,
                derandomize=True,
                database=None,
                deadline=None,
                phases=(Phase.explicit, Phase.generate),
                suppress_health_check=list(HealthCheck),
            ),
        ),
    )()


# They do not look at who asks, so one kind of caller is enough.
@pytest.mark.parametrize("operation", _PUBLIC, ids=" ".join)
def test_what_is_public(schema: OpenApiSchema, operation: tuple[str, str], nobody: Caller) -> None:
    _explore(schema, operation, nobody)


@pytest.mark.parametrize("operation", _GUARDED, ids=" ".join)
def test_as_a_user(schema: OpenApiSchema, operation: tuple[str, str], user: Caller) -> None:
    _explore(schema, operation, user, examples=_FEW if _ADMINS_ONLY.match(operation[1]) else _EXAMPLES)


@pytest.mark.parametrize("operation", _GUARDED, ids=" ".join)
def test_as_an_administrator(schema: OpenApiSchema, operation: tuple[str, str], administrator: Caller) -> None:
    _explore(schema, operation, administrator)


@pytest.mark.parametrize("operation", _GUARDED, ids=" ".join)
def test_as_nobody(schema: OpenApiSchema, operation: tuple[str, str], nobody: Caller) -> None:
    _explore(schema, operation, nobody, examples=_FEW)


def test_no_operation_was_left_out(document: dict[str, Any]) -> None:
    assert set(_operations(document)) == set(_operations(_CONTRACT))


@pytest.mark.parametrize("path", _CONTRACT["paths"])
def test_other_methods_are_405_and_name_those_that_are_offered(
    stack: LocalStack, document: dict[str, Any], path: str
) -> None:
    offered = set(document["paths"][path]) | ({"head"} if _WITH_HEAD.search(path) else set())
    for method in _METHODS - offered:
        answer = requests.request(method, f"{stack.url}{path.format_map(_ANY_ID)}", timeout=60)
        assert answer.status_code == 405, (method, path)
        assert {name.strip().lower() for name in answer.headers["allow"].split(",")} == offered


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/auth/register", {"username": "half", "email": "half@example.com", "password": f"{PASSWORD}{_HALF}"}),
        ("POST", "/auth/register", {"username": "half", "email": f"{_HALF}@example.com", "password": PASSWORD}),
        ("POST", "/auth/reset-password", {"token": "none", "new_password": f"{PASSWORD}{_HALF}"}),
        ("POST", "/auth/change-password", {"current_password": PASSWORD, "new_password": f"{PASSWORD}{_HALF}"}),
        ("POST", "/auth/api-keys", {"name": _HALF, "scopes": ["read"]}),
        ("POST", "/environments", {"name": _HALF}),
        ("POST", "/environments", {"name": "half", "environment_variables": {_HALF: "value"}}),
        ("POST", "/environments", {"name": "half", "environment_variables": {_HALF: 1}}),
        ("POST", "/environments", {"name": "half", "environment_variables": {"NAME": _HALF}}),
        ("POST", "/ws/tickets", {"environment_id": _HALF}),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_half_a_character_is_refused(user: Caller, method: str, path: str, body: dict[str, Any]) -> None:
    """JSON can say it, UTF-8 cannot; generators leave it out."""
    answer = user.request(method, path, body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "validation_error"


class TestGateway:
    """What nginx answers by itself is a problem as the document describes it."""

    def test_whatever_it_may_answer(self, stack: LocalStack, document: dict[str, Any]) -> None:
        configuration = (stack.data_dir / "gateway" / "nginx.conf").read_text()
        answers = re.findall(r"return (\d+) '(\{.*\})';", configuration)
        assert {"429", "502", "504"} <= {status for status, _ in answers}
        for status, body in answers:
            assert _complaints(document, json.loads(body), int(status)) == []

    @pytest.mark.parametrize(
        ("status", "request_line", "header"),
        [
            (400, "GET /api/v1/environments/%00 HTTP/1.1", ""),
            (400, "GET /health HTTP/1.1", "Content-Length: much"),
            (400, "hello", ""),
            (404, "GET /nothing/here HTTP/1.1", ""),
            (405, "TRACE /health HTTP/1.1", ""),
            (412, "GET /openapi.json HTTP/1.1", 'If-Match: "other"'),
            (413, "POST /api/v1/environments HTTP/1.1", f"Content-Length: {11 << 20}"),
            (414, f"GET /health?{'x' * 40_000} HTTP/1.1", ""),
            (431, "GET /health HTTP/1.1", f"X-Large: {'x' * 40_000}"),
            (501, "POST /api/v1/environments HTTP/1.1", "Transfer-Encoding: of-my-own"),
            (505, "GET /health HTTP/3.0", ""),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_requests_that_never_reach_a_service(
        self, stack: LocalStack, document: dict[str, Any], status: int, request_line: str, header: str
    ) -> None:
        head = "\r\n".join([request_line, "Host: devpocket", "Connection: close", *filter(None, [header])])
        with socket.create_connection(("127.0.0.1", stack.port), timeout=60) as connection:
            connection.sendall(f"{head}\r\n\r\n".encode())
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            body = json.loads(answer.read())
        assert (answer.status, answer.getheader("Content-Type")) == (status, _PROBLEM)
        assert body["request_id"] == answer.getheader("X-Request-ID")
        assert _complaints(document, body, status) == []


def _complaints(document: dict[str, Any], problem: dict[str, Any], status: int) -> list[str]:
    assert problem["status"] == status
    return list(complaints(problem, {"$ref": "#/components/schemas/Problem"}, document))
