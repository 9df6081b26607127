"""What a phone does over HTTP/2, and WebSockets beside it at the same port."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import h2.config
import h2.connection
import httpx
import pytest
from websockets.asyncio.client import connect

from libs.cli.stack.certificates import Certificate
from services.terminal.settings import TerminalSettings
from tests.unit.gateway.conftest import StartGateway

_MIB = 1024 * 1024


@pytest.fixture
async def http(secure: str, trust: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=secure, http2=True, http1=False, verify=trust) as client:
        yield client


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    assert (response.http_version, response.status_code) == ("HTTP/2", status)
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == response.headers["x-request-id"]
    assert response.headers["x-content-type-options"] == "nosniff"


class TestApi:
    async def test_a_request_reaches_its_service_as_ever(self, http: httpx.AsyncClient, secure: str) -> None:
        response = await http.post("/api/v1/auth/login", json={"a": 1}, headers={"X-Request-ID": "phone-42"})
        assert (response.http_version, response.status_code) == ("HTTP/2", 200)
        assert response.headers["x-request-id"] == "phone-42"
        seen = response.json()["headers"]
        assert seen["host"] == secure.removeprefix("https://")
        assert (seen["x-forwarded-proto"], seen["x-forwarded-for"]) == ("https", "127.0.0.1")
        assert seen["x-request-id"] == "phone-42"
        assert "upgrade" not in seen

    async def test_an_event_is_not_held_back_and_holds_up_nobody(self, http: httpx.AsyncClient) -> None:
        async with http.stream("GET", "/api/v1/events") as response:
            assert response.http_version == "HTTP/2"
            assert await anext(response.aiter_lines()) == "data: first"
            assert (await http.get("/api/v1/auth/me")).status_code == 200

    async def test_large_files_pass_both_ways_at_once(self, http: httpx.AsyncClient) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(24):
                yield b"x" * _MIB

        async def download() -> int:
            async with http.stream("GET", "/api/v1/environments/7/files/large?pieces=400") as response:
                return sum([len(piece) async for piece in response.aiter_bytes()])

        received, sent = await asyncio.gather(
            download(), http.put("/api/v1/environments/7/files/new", content=pieces())
        )
        assert received == 400 * 65536
        assert sent.json()["body_bytes"] == 24 * _MIB

    async def test_more_requests_than_streams_wait_for_each_other(self, http: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(*(http.get(f"/api/v1/templates/{number}") for number in range(80)))
        assert {answer.status_code for answer in answers} == {200}


class TestProblems:
    async def test_of_the_gateway(self, http: httpx.AsyncClient) -> None:
        assert_problem(await http.get("/nowhere"), 404, "not_found")
        assert_problem(await http.delete("/docs"), 405, "method_not_allowed")
        # Only said, not sent: this client reads no answer before it has sent all.
        announced = {"Content-Length": str(11 * _MIB)}
        assert_problem(await http.post("/api/v1/auth/login", headers=announced), 413, "content_too_large")
        assert_problem(await http.get("/api/v1/auth/me", headers={"Host": "a b"}), 400, "bad_request")

    @pytest.mark.parametrize("headers", [{"X-Big": "a" * 40_000}, {f"X-Big-{n}": "a" * 5000 for n in range(8)}])
    async def test_headers_that_are_too_large_end_the_connection(
        self, http: httpx.AsyncClient, headers: dict[str, str]
    ) -> None:
        """nginx says so in HTTP/2's own words (ENHANCE_YOUR_CALM, 11); the next request has a new connection."""
        with pytest.raises(httpx.RemoteProtocolError, match="error_code:11"):
            await http.get("/api/v1/auth/me", headers=headers)
        assert (await http.get("/api/v1/auth/me")).status_code == 200

    async def test_of_a_service_that_is_away(
        self, start_gateway: StartGateway, certificate: Certificate, trust: ssl.SSLContext
    ) -> None:
        url = start_gateway(certificate, requests_per_second=1)
        async with httpx.AsyncClient(http2=True, verify=trust) as client:
            first = await client.get(f"{url}/api/v1/environments")
            assert_problem(first, 502, "bad_gateway")
            assert first.headers["retry-after"] == "2"
            others = await asyncio.gather(*(client.get(f"{url}/api/v1/environments") for _ in range(12)))
        refused = next(answer for answer in others if answer.status_code == 429)
        assert_problem(refused, 429, "rate_limited")
        assert refused.headers["retry-after"] == "1"


class TestWebSockets:
    async def test_they_use_http1_at_the_same_port(self, secure: str, trust: ssl.SSLContext) -> None:
        url = secure.replace("https", "wss")
        for path in ("/api/v1/ws/terminal/7", "/preview/7/3000/live"):
            async with connect(url + path, ssl=trust, proxy=None) as socket_:
                for text in ("ls\n", "x" * 100_000):
                    await socket_.send(text)
                    assert await socket_.recv() == text

    @pytest.mark.parametrize("protocol", ["h2c", "tcp", "websocket, h2c"])
    def test_nothing_else_is_agreed_on(self, secure: str, trust: ssl.SSLContext, protocol: str) -> None:
        headers = {"Upgrade": protocol, "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
        seen = httpx.get(f"{secure}/preview/7/3000/", headers=headers, verify=trust).json()["headers"]
        assert "upgrade" not in seen
        assert seen.get("connection", "") != "upgrade"


@contextmanager
def spoken(url: str, trust: ssl.SSLContext) -> Iterator[tuple[h2.connection.H2Connection, Callable[[], None]]]:
    """A connection frame by frame, and what sends and then reads once."""
    place = urlsplit(url)
    trust.set_alpn_protocols(["h2"])
    plain = socket.create_connection((place.hostname, place.port), timeout=60)
    connection = h2.connection.H2Connection(h2.config.H2Configuration())
    with trust.wrap_socket(plain, server_hostname="localhost") as wire:

        def exchange() -> None:
            wire.sendall(connection.data_to_send())
            read = wire.recv(65536)
            assert read, "the connection has ended"
            connection.receive_data(read)

        connection.initiate_connection()
        yield connection, exchange


def test_a_browser_is_kept_below_what_previews_allow(secure: str, trust: ssl.SSLContext) -> None:
    allowed = TerminalSettings.model_fields["preview_requests_per_user"].default
    with spoken(secure, trust) as (connection, exchange):
        while connection.remote_settings.max_concurrent_streams > allowed:
            exchange()
        # API and previews may be two connections.
        assert connection.remote_settings.max_concurrent_streams * 2 <= allowed


@pytest.mark.parametrize("path", ["/api/v1/environments/7/files/large", "/preview/7/3000/upload"])
def test_an_upload_from_far_away_need_not_wait_for_every_64_kb(secure: str, trust: ssl.SSLContext, path: str) -> None:
    pseudo = {":method": "PUT", ":scheme": "https", ":authority": urlsplit(secure).netloc, ":path": path}
    with spoken(secure, trust) as (connection, exchange):
        connection.send_headers(1, [*pseudo.items(), ("content-length", "10000000")])
        # Else it fails by the socket's time-out.
        while connection.local_flow_control_window(1) < 500_000:
            exchange()
