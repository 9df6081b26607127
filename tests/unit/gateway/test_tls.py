"""TLS on a real nginx: what is spoken, what is not, and what becomes of plain text."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest

from tests.unit.gateway.conftest import Beside

HSTS = "strict-transport-security"


def handshake(url: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Spoken:
    """Raises SSLError."""
    place = urlsplit(url)
    plain = socket.create_connection((place.hostname, place.port), timeout=60)
    with context.wrap_socket(plain, server_hostname="localhost", session=session) as tls:
        # TLS 1.3 sends its session with the first answer.
        tls.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert b"200 OK" in tls.recv(1000)
        name, _, bits = tls.cipher() or ("", "", 0)
        return Spoken(tls.selected_alpn_protocol(), name, bits, tls.session, bool(tls.session_reused))


@dataclass(frozen=True)
class Spoken:
    """What a client and the gateway have agreed on."""

    protocol: str | None
    cipher: str
    bits: int
    session: ssl.SSLSession | None
    is_resumed: bool


class TestWhatIsSpoken:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_two_versions_with_forward_secrecy_and_sessions(
        self, secure: str, trust: ssl.SSLContext, version: ssl.TLSVersion
    ) -> None:
        trust.minimum_version = trust.maximum_version = version
        first = handshake(secure, trust)
        assert first.cipher.startswith(("ECDHE-", "TLS_"))
        assert first.bits >= 128
        assert handshake(secure, trust, first.session).is_resumed
        assert not handshake(secure, trust).is_resumed

    def test_no_older_version(self, secure: str, trust: ssl.SSLContext) -> None:
        trust.set_ciphers("DEFAULT:@SECLEVEL=0")  # else this client would not even ask
        trust.minimum_version = trust.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
            handshake(secure, trust)

    @pytest.mark.parametrize("ciphers", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384"])
    def test_no_cipher_without_forward_secrecy_or_authenticated_encryption(
        self, secure: str, trust: ssl.SSLContext, ciphers: str
    ) -> None:
        trust.maximum_version = ssl.TLSVersion.TLSv1_2
        trust.set_ciphers(ciphers)
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            handshake(secure, trust)

    def test_one_port_for_http2_and_http1(self, secure: str, trust: ssl.SSLContext) -> None:
        assert handshake(secure, trust).protocol is None
        trust.set_alpn_protocols(["http/1.1"])
        assert handshake(secure, trust).protocol == "http/1.1"
        trust.set_alpn_protocols(["h2", "http/1.1"])
        with httpx.Client(http2=True, verify=trust) as client:
            assert client.get(f"{secure}/health").http_version == "HTTP/2"


class TestStrictTransportSecurity:
    def hsts(self, url: str, trust: ssl.SSLContext, host: str) -> list[str]:
        return httpx.get(f"{url}/health", headers={"Host": host}, verify=trust).headers.get_list(HSTS)

    def test_it_is_promised_but_not_for_localhost(self, beside: Beside, trust: ssl.SSLContext) -> None:
        assert self.hsts(beside.secure, trust, "phone.example.com") == ["max-age=31536000; includeSubDomains"]
        assert self.hsts(beside.secure, trust, "notlocalhost") != []
        for host in ("localhost", "localhost:8443", "7.preview.localhost"):
            assert self.hsts(beside.secure, trust, host) == []

    def test_nothing_is_promised_with_a_certificate_for_development(self, secure: str, trust: ssl.SSLContext) -> None:
        assert self.hsts(secure, trust, "phone.example.com") == []

    def test_a_service_learns_how_it_was_asked(self, secure: str, trust: ssl.SSLContext) -> None:
        seen = httpx.get(f"{secure}/api/v1/auth/me", headers={"X-Forwarded-Proto": "http"}, verify=trust).json()
        assert seen["headers"]["x-forwarded-proto"] == "https"


CREDENTIALS = {"Authorization": "Bearer x", "Cookie": "preview=x"}
SOCKET = {"Upgrade": "websocket", "Connection": "upgrade"}


def assert_refused(response: httpx.Response) -> None:
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["code"]) == (403, "https_required")
    assert problem["request_id"] == response.headers["x-request-id"]
    assert HSTS not in response.headers


class TestPlainText:
    """At the port for TLS, as in the local stack, and at one of its own, as in the image."""

    @pytest.fixture(params=["same port", "own port"])
    def urls(self, request: pytest.FixtureRequest, secure: str, beside: Beside) -> Beside:
        if request.param == "same port":
            return Beside(secure.replace("https", "http"), secure)
        return beside

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_a_link_is_put_right(self, urls: Beside, trust: ssl.SSLContext, method: str) -> None:
        response = httpx.request(method, f"{urls.plain}/api/v1/templates?a=%20b")
        assert response.status_code == 308
        assert response.headers["location"] == f"{urls.secure}/api/v1/templates?a=%20b"
        assert httpx.request(method, response.headers["location"], verify=trust).status_code == 200

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    def test_what_carries_a_body_is_refused(self, urls: Beside, method: str) -> None:
        assert_refused(httpx.request(method, f"{urls.plain}/api/v1/auth/login", content=b'{"password": "x"}'))

    @pytest.mark.parametrize("headers", [{name: value} for name, value in CREDENTIALS.items()] + [SOCKET])
    def test_what_carries_credentials_is_refused(self, urls: Beside, headers: dict[str, str]) -> None:
        assert_refused(httpx.get(f"{urls.plain}/api/v1/ws/terminal/7?token=x", headers=headers))


class TestBesideTls:
    @pytest.mark.parametrize("path", ["/health", "/health/ready", "/docs/init.js"])
    def test_probes_are_answered(self, beside: Beside, path: str) -> None:
        assert httpx.get(beside.plain + path).status_code == 200

    @pytest.mark.parametrize("path", ["/healthy", "/api/v1/templates|/health", "/health/ready/x", "/docs/init.js/x"])
    def test_what_only_looks_like_one_is_not(self, beside: Beside, path: str) -> None:
        assert httpx.get(beside.plain + path).status_code == 308
        assert_refused(httpx.get(beside.plain + path, headers={"Authorization": "Bearer x"}))

    def test_a_trusted_proxy_speaks_for_its_client(self, beside: Beside) -> None:
        def ask(scheme: str, source: str) -> httpx.Response:
            claims = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": scheme}
            with httpx.Client(transport=httpx.HTTPTransport(local_address=source)) as client:
                return client.get(f"{beside.plain}/api/v1/auth/me", headers={**claims, "Authorization": "Bearer x"})

        assert ask("https", "127.0.0.2").status_code == 200
        assert HSTS in ask("https", "127.0.0.2").headers
        assert_refused(ask("http", "127.0.0.2"))
        assert_refused(ask("https", "127.0.0.3"))

    def test_what_cannot_be_read_is_still_a_problem(self, beside: Beside) -> None:
        place = urlsplit(beside.plain)
        with socket.create_connection((place.hostname, place.port), timeout=60) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
            assert b'"code":"bad_request"' in client.makefile("rb").read()
