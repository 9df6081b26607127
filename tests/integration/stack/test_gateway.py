"""The gateway in front of stand-ins that say what reached them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.integration.stack.harness import RunningStack
from tests.integration.stack.standins import TRACE_ID

_PATIENCE_S = 30.0
ROUTES = [
    ("/api/v1/auth", "auth"),
    ("/api/v1/auth/login", "auth"),
    ("/api/v1/auth/.well-known/jwks.json", "auth"),
    ("/api/v1/users", "auth"),
    ("/api/v1/users/7", "auth"),
    ("/api/v1/environments", "envs"),
    ("/api/v1/environments/7/start", "envs"),
    ("/api/v1/environments/7/events", "envs"),
    ("/api/v1/environments/7/files", "terminal"),
    ("/api/v1/environments/7/files/src/main.py", "terminal"),
    ("/api/v1/environments/7/exec", "terminal"),
    ("/api/v1/environments/7/filesystem", "envs"),
    ("/api/v1/templates", "envs"),
    ("/api/v1/admin/events", "envs"),
    ("/api/v1/admin/replays/auth", "auth"),
    ("/api/v1/admin/replays/orchestrator", "orchestrator"),
    ("/api/v1/admin/replays/terminal/", "terminal"),
    ("/api/v1/admin/environments/7/timeline", "envs"),
    ("/api/v1/admin/dead-letters/7/redrive", "envs"),
    ("/api/v1/clusters", "orchestrator"),
    ("/api/v1/clusters/7", "orchestrator"),
    ("/api/v1/regions", "orchestrator"),
    ("/api/v1/ws/tickets", "terminal"),
    ("/health", "envs"),
    ("/health/live", "envs"),
]
NOWHERE = ["/", "/metrics", "/api/v1/auth/../../../metrics", "/api/v1/authority", "/api/v2/auth", "/health/metrics"]


@pytest.fixture(scope="module")
def http(stack: RunningStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, follow_redirects=False, timeout=_PATIENCE_S) as client:
        yield client


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"title", "status", "detail", "code", "request_id"}
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == response.headers["x-request-id"]


def logged(stack: RunningStack, text: str) -> str:
    """The gateway's log, once it has that: nginx writes a line after the answer. Raises AssertionError."""
    deadline = time.monotonic() + _PATIENCE_S
    while text not in (log := (stack.paths.logs / "gateway.log").read_text()):
        assert time.monotonic() < deadline, f"no {text!r} in the log"
        time.sleep(0.02)
    return log


class TestRouting:
    @pytest.mark.parametrize(("path", "service"), ROUTES)
    @pytest.mark.parametrize("ending", ["", "/"])
    def test_each_path_reaches_its_service(self, http: httpx.Client, path: str, service: str, ending: str) -> None:
        response = http.get(path + ending)
        assert response.status_code == 200
        assert (response.json()["service"], response.json()["path"]) == (service, path + ending)

    @pytest.mark.parametrize("path", NOWHERE)
    def test_what_leads_nowhere_is_a_problem(self, http: httpx.Client, path: str) -> None:
        # Not normalised by the client, as an attacker would send it.
        request = http.build_request("GET", "/")
        request.url = request.url.copy_with(raw_path=path.encode())
        assert_problem(http.send(request), 404, "not_found")

    def test_a_body_arrives_whole(self, http: httpx.Client) -> None:
        assert http.post("/api/v1/environments", content=b"x" * 9_000_000).json()["body_bytes"] == 9_000_000

    def test_a_body_above_10_mb_is_refused(self, http: httpx.Client) -> None:
        assert_problem(http.post("/api/v1/environments", content=b"x" * 11_000_000), 413, "content_too_large")

    def test_a_file_may_be_larger(self, http: httpx.Client) -> None:
        answer = http.post("/api/v1/environments/7/files/f", content=b"x" * 12_000_000).json()
        assert (answer["service"], answer["body_bytes"]) == ("terminal", 12_000_000)
        assert_problem(http.post("/api/v1/environments/7/exec", content=b"x" * 12_000_000), 413, "content_too_large")

    def test_replicas_share_the_work(self, http: httpx.Client) -> None:
        pids = {http.get("/api/v1/ws/tickets").json()["pid"] for _ in range(8)}
        assert len(pids) == 2


class TestHeaders:
    @pytest.mark.parametrize("path", ["/api/v1/auth/me", "/nowhere", "/docs"])
    def test_security_headers_are_on_every_answer_once(self, http: httpx.Client, path: str) -> None:
        headers = http.get(path).headers
        for name, value in {
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "no-referrer",
        }.items():
            assert headers.get_list(name) == [value]
        assert len(headers.get_list("content-security-policy")) == 1
        assert headers["server"] == "nginx"

    def test_a_request_without_a_name_gets_one(self, http: httpx.Client) -> None:
        response = http.get("/api/v1/auth/me")
        name = response.headers.get_list("x-request-id")
        assert len(name) == 1
        assert re.fullmatch(r"[0-9a-f]{32}", name[0])
        assert response.json()["headers"]["x-request-id"] == name[0]

    def test_a_good_name_is_kept(self, http: httpx.Client) -> None:
        response = http.get("/api/v1/auth/me", headers={"X-Request-ID": "phone-42.retry_1"})
        assert response.headers["x-request-id"] == "phone-42.retry_1"
        assert response.json()["headers"]["x-request-id"] == "phone-42.retry_1"

    @pytest.mark.parametrize("name", ["short", 'x" , "admin": "yes', "a" * 129, "späterer-name"])
    def test_a_bad_name_is_replaced(self, http: httpx.Client, name: str) -> None:
        response = http.get("/api/v1/auth/me", headers=[(b"X-Request-ID", name.encode())])
        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])

    def test_a_client_may_name_its_trace_and_nothing_more_goes_along(self, http: httpx.Client) -> None:
        named = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        offered = {"traceparent": named, "tracestate": "a=b", "baggage": "user=admin"}
        seen = http.get("/api/v1/auth/me", headers=offered).json()["headers"]
        assert seen["traceparent"] == named
        assert not {"tracestate", "baggage"} & seen.keys()

    def test_the_trace_of_an_answer_is_passed_on_and_logged(self, stack: RunningStack, http: httpx.Client) -> None:
        response = http.get("/api/v1/auth/me", headers={"X-Request-ID": "request-with-a-trace"})
        assert response.headers["x-trace-id"] == TRACE_ID
        logged(stack, f"id=request-with-a-trace trace={TRACE_ID}")

    def test_claims_about_the_client_are_replaced(self, http: httpx.Client) -> None:
        claims = {
            "X-Forwarded-For": "1.2.3.4",
            "X-Real-IP": "1.2.3.4",
            "X-Forwarded-Proto": "https",
            "Forwarded": "for=1",
        }
        seen = http.get("/api/v1/auth/me", headers=claims).json()["headers"]
        assert (seen["x-forwarded-for"], seen["x-real-ip"], seen["x-forwarded-proto"]) == ("127.0.0.1",) * 2 + ("http",)
        assert "forwarded" not in seen


class TestDocumentation:
    @pytest.mark.parametrize("page", ["/docs", "/docs/", "/redoc", "/redoc/"])
    def test_pages_need_nothing_from_elsewhere(self, http: httpx.Client, page: str) -> None:
        response = http.get(page)
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        links = re.findall(r'(?:src|href)="([^"]+)"', response.text)
        assert links
        assert "://" not in response.text
        for link in links:
            asset = http.get(link)
            assert asset.status_code == 200
            assert asset.content
        # Inline scripts would not run: the policy allows those of this origin only.
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert not re.search(r"<script(?![^>]*\bsrc=)", response.text)

    def test_the_contract_is_there(self, http: httpx.Client) -> None:
        response = http.get("/openapi.json")
        assert response.headers["content-type"] == "application/json"
        assert json.loads(response.text)["openapi"].startswith("3.")


class TestStreams:
    def test_a_websocket_echoes_text_and_bytes(self, stack: RunningStack) -> None:
        url = f"ws://127.0.0.1:{stack.port}/api/v1/ws/terminal/7?token=secret"
        with connect(url, additional_headers={"X-Forwarded-For": "1.2.3.4"}) as socket:
            hello: dict[str, Any] = json.loads(socket.recv(timeout=_PATIENCE_S))
            assert hello["headers"]["x-forwarded-for"] == "127.0.0.1"
            for message in ("ls\n", b"\x00\xff" * 100_000):
                socket.send(message)
                assert socket.recv(timeout=_PATIENCE_S) == message

    def test_a_token_in_a_url_reaches_no_log(self, stack: RunningStack, http: httpx.Client) -> None:
        http.get("/api/v1/ws/tickets?token=very-secret-token")
        http.get("/nowhere?token=very-secret-token", headers={"X-Request-ID": "with-a-secret-token"})
        log = logged(stack, "id=with-a-secret-token")
        assert "/api/v1/ws/tickets" in log
        assert "very-secret-token" not in log

    def test_an_event_is_not_held_back(self, http: httpx.Client) -> None:
        with http.stream("GET", "/api/v1/events") as response:
            assert next(response.iter_lines()) == "data: first"
