"""Google's side of a sign-in: a certificate server on a real socket, and tokens signed with real keys."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from libs.common.clock import utc_now

CLIENT_ID = "app.apps.googleusercontent.com"


class SigningKey:
    """An RSA key, with a certificate that it signed itself."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.certificate = _self_signed(self.private)

    def as_jwk(self) -> dict[str, Any]:
        """The public half as a JSON Web Key."""
        jwk: dict[str, Any] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key()))
        return {**jwk, "kid": self.kid, "alg": "RS256", "use": "sig"}


def _self_signed(key: rsa.RSAPrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "federated-signon.test")])
    now = utc_now()
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=14))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def pems(*keys: SigningKey) -> dict[str, str]:
    """What Google's /oauth2/v1/certs answers."""
    return {key.kid: key.certificate for key in keys}


def jwks(*keys: SigningKey) -> dict[str, Any]:
    """What Google's /oauth2/v3/certs answers."""
    return {"keys": [key.as_jwk() for key in keys]}


def google_token(
    key: SigningKey,
    *,
    algorithm: str = "RS256",
    secret: Any = None,
    kid: str | None = None,
    without: tuple[str, ...] = (),
    **claims: Any,
) -> str:
    """An ID token as Google makes them, good unless changed: `claims` replace, `without` takes away.

    `secret` signs instead of `key`, whose kid, or `kid`, is named all the same.
    """
    now = int(utc_now().timestamp())
    payload = {
        "iss": "https://accounts.google.com",
        "aud": CLIENT_ID,
        "azp": CLIENT_ID,
        "sub": "110169484474386276334",
        "email": "grace@example.com",
        "email_verified": True,
        "name": "Grace Hopper",
        "picture": "https://lh3.example.com/grace.png",
        "iat": now,
        "exp": now + 3600,
        **claims,
    }
    kept = {name: value for name, value in payload.items() if name not in without}
    signing: Any = None if algorithm == "none" else secret or key.private
    return jwt.encode(kept, signing, algorithm, headers={"kid": kid or key.kid})


class CertificateServer:
    """Serves `certificates`, or fails with `status`, or answers `body`; counts its `fetches`.

    `age` makes an answer look as if a cache on the way had kept it for so long.
    """

    def __init__(self, certificates: Mapping[str, Any], url: str) -> None:
        self.url = url
        self.certificates = certificates
        self.status = 200
        self.body: bytes | None = None
        self.cache_control = "public, max-age=3600, must-revalidate, no-transform"
        self.age = timedelta()
        self.fetches = 0

    def answer(self) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the next answer."""
        self.fetches += 1
        body = self.body if self.body is not None else json.dumps(self.certificates).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Date": format_datetime(utc_now() - self.age, usegmt=True),
            "Cache-Control": self.cache_control,
        }
        return self.status, headers, body


@contextmanager
def certificate_server(*keys: SigningKey) -> Iterator[CertificateServer]:
    """Serves `pems(*keys)` on a loopback port for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = server.answer()
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing: what the test sees is enough."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = CertificateServer(pems(*keys), f"http://127.0.0.1:{http.server_port}/oauth2/v1/certs")
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), name="certificates")
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
