"""The template, and what nginx answers by itself. Routing and headers are tested with services behind it."""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import replace

import httpx
import pytest

from libs.cli.stack.gateway import UPSTREAMS, GatewayConfig, local_config, render
from libs.cli.stack.paths import StackPaths
from tests.unit.gateway.conftest import StartGateway, nginx

CONFIG = GatewayConfig(
    listen="8080",
    upstreams={name: [f"127.0.0.{number}:8000"] for number, name in enumerate(UPSTREAMS, start=1)},
    pid_path="/tmp/nginx.pid",
    temp_dir="/tmp",
    pages_dir="/pages",
    assets_dir="/assets",
    openapi_path="/openapi.json",
)


class TestTemplate:
    def test_nginx_accepts_it_without_a_warning(self, paths: StackPaths) -> None:
        config = local_config(paths, 8123, CONFIG.upstreams)
        result = subprocess.run(nginx(paths, render(config), "-t"), capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert "warn" not in result.stderr

    def test_every_replica_is_an_upstream(self) -> None:
        text = render(replace(CONFIG, upstreams={**CONFIG.upstreams, "envs": ["127.0.0.1:1", "127.0.0.1:2"]}))
        assert "server 127.0.0.1:1 " in text
        assert "server 127.0.0.1:2 " in text

    def test_a_service_without_an_address_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="envs"):
            render(replace(CONFIG, upstreams={**CONFIG.upstreams, "envs": []}))

    def test_workers_change_their_user_only_where_told(self) -> None:
        assert not render(CONFIG).startswith("user ")
        assert render(replace(CONFIG, user="root")).startswith("user root;\n")


class TestAnswers:
    def test_a_service_that_is_away_is_a_problem(self, start_gateway: StartGateway) -> None:
        response = httpx.get(f"{start_gateway()}/api/v1/environments", headers={"X-Request-ID": "phone-42"})
        assert response.status_code == 502
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["retry-after"] == "2"
        assert response.json() == {
            "title": "Bad Gateway",
            "status": 502,
            "detail": "The service behind this address does not answer, please try again in a moment.",
            "code": "bad_gateway",
            "request_id": "phone-42",
        }

    def test_a_flood_is_a_problem(self, start_gateway: StartGateway) -> None:
        url = start_gateway(requests_per_second=1)
        with httpx.Client() as client:
            responses = [client.get(f"{url}/api/v1/auth/me") for _ in range(3)]
            assert {response.status_code for response in responses} == {502}
            # On a busy machine some more than the three at once are let through: one in each second.
            while responses[-1].status_code == 502:
                responses.append(client.get(f"{url}/api/v1/auth/me"))
        last = responses[-1]
        assert (last.status_code, last.json()["code"]) == (429, "rate_limited")
        assert last.headers["retry-after"] == "1"
        assert last.headers["x-content-type-options"] == "nosniff"

    def test_a_missing_contract_is_a_problem(self, start_gateway: StartGateway) -> None:
        response = httpx.get(f"{start_gateway(openapi_path='/none')}/openapi.json")
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")

    @pytest.mark.parametrize("method", ["POST", "DELETE"])
    def test_pages_are_for_reading(self, start_gateway: StartGateway, method: str) -> None:
        response = httpx.request(method, f"{start_gateway()}/docs")
        assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")

    def test_headers_that_do_not_fit_are_a_problem(self, start_gateway: StartGateway) -> None:
        response = httpx.get(f"{start_gateway()}/nowhere", headers={"X-Big": "a" * 40_000})
        assert (response.status_code, response.json()["code"]) == (431, "headers_too_large")

    def test_an_unreadable_request_is_a_problem(self, start_gateway: StartGateway) -> None:
        host, _, port = start_gateway().removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(b"GET /nowhere HTTP/1.1\r\nHost: here\r\nContent-Length: many\r\n\r\n")
            head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
        assert b"400 Bad Request" in head
        assert b"application/problem+json" in head
        assert json.loads(body)["code"] == "bad_request"
