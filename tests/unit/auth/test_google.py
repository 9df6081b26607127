"""Google ID tokens with real keys, against a certificate server on a real socket."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from libs.common.errors import UnavailableError
from services.auth.errors import InvalidGoogleTokenError
from services.auth.google import GoogleAuthIdentities
from services.auth.ports import GoogleIdentity
from tests.support.google import (
    CLIENT_ID,
    CertificateServer,
    SigningKey,
    certificate_server,
    google_token,
    jwks,
)
from tests.support.servers import free_port

OTHER_CLIENT_ID = "web.apps.googleusercontent.com"


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey("a1")


@pytest.fixture(scope="module")
def other_key() -> SigningKey:
    return SigningKey("b2")


@pytest.fixture
def server(key: SigningKey, other_key: SigningKey) -> Iterator[CertificateServer]:
    with certificate_server(key, other_key) as server:
        yield server


@pytest.fixture
def google(server: CertificateServer) -> Iterator[GoogleAuthIdentities]:
    google = GoogleAuthIdentities([CLIENT_ID, OTHER_CLIENT_ID], server.url)
    yield google
    google.close()


class Hands:
    """A clock that a test moves, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def unsigned_parts(header: Any, payload: Any) -> str:
    """A token with a signature that is none."""
    parts = [json.dumps(part).encode() if not isinstance(part, bytes) else part for part in (header, payload)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*parts, b"signature"))


async def assert_refused(google: GoogleAuthIdentities, token: str) -> None:
    with pytest.raises(InvalidGoogleTokenError) as caught:
        await google.identify(token)
    assert caught.value.message == "Google token is invalid or has expired"
    assert caught.value.__cause__ is None


@pytest.fixture(params=["pem", "jwk"])
def either(request: pytest.FixtureRequest, server: CertificateServer, key: SigningKey, other_key: SigningKey) -> None:
    """Certificates in both formats that Google has."""
    if request.param == "jwk":
        server.certificates = jwks(key, other_key)


@pytest.mark.usefixtures("either")
class TestTokens:
    async def test_good(self, google: GoogleAuthIdentities, key: SigningKey) -> None:
        assert await google.identify(google_token(key)) == GoogleIdentity(
            subject="110169484474386276334",
            email="grace@example.com",
            email_verified=True,
            name="Grace Hopper",
            picture="https://lh3.example.com/grace.png",
        )

    @pytest.mark.parametrize(
        "claims", [{"iss": "accounts.google.com"}, {"aud": OTHER_CLIENT_ID}, {"name": None, "picture": None}]
    )
    async def test_also_good(self, google: GoogleAuthIdentities, key: SigningKey, claims: dict[str, Any]) -> None:
        assert (await google.identify(google_token(key, **claims))).email == "grace@example.com"

    @pytest.mark.parametrize(
        "claims",
        [
            {"aud": "someone-else.apps.googleusercontent.com"},
            {"aud": ""},
            {"iss": "https://accounts.google.com.evil.example"},
            {"iss": "http://accounts.google.com"},
            {"iss": "https://securetoken.google.com/project"},
        ],
    )
    async def test_for_others_or_by_others(
        self, google: GoogleAuthIdentities, key: SigningKey, claims: dict[str, Any]
    ) -> None:
        await assert_refused(google, google_token(key, **claims))

    @pytest.mark.parametrize("claim", ["aud", "iss", "exp"])
    async def test_without_a_claim_that_matters(
        self, google: GoogleAuthIdentities, key: SigningKey, claim: str
    ) -> None:
        await assert_refused(google, google_token(key, without=(claim,)))

    @pytest.mark.parametrize(("issued", "lives"), [(-7200, 3600), (600, 3600)], ids=["expired", "not_yet_valid"])
    async def test_at_the_wrong_time(
        self, google: GoogleAuthIdentities, key: SigningKey, issued: int, lives: int
    ) -> None:
        issued_at = json.loads(_payload_of(google_token(key)))["iat"] + issued
        await assert_refused(google, google_token(key, iat=issued_at, exp=issued_at + lives))

    async def test_unsigned(self, google: GoogleAuthIdentities, key: SigningKey) -> None:
        await assert_refused(google, google_token(key, algorithm="none"))

    async def test_signed_with_the_public_certificate(self, google: GoogleAuthIdentities, key: SigningKey) -> None:
        """PyJWT would not make such a token; an attacker's program would."""
        public = key.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for secret in (key.certificate.encode(), public):
            await assert_refused(google, _hs256(google_token(key), secret, key.kid))

    async def test_signed_by_another_kind_of_key(self, google: GoogleAuthIdentities, key: SigningKey) -> None:
        secret = ec.generate_private_key(ec.SECP256R1())
        await assert_refused(google, google_token(key, algorithm="ES256", secret=secret))

    async def test_kid_of_one_key_signed_with_the_other(
        self, google: GoogleAuthIdentities, key: SigningKey, other_key: SigningKey
    ) -> None:
        await assert_refused(google, google_token(other_key, kid=key.kid))

    async def test_changed_after_signing(self, google: GoogleAuthIdentities, key: SigningKey) -> None:
        header, _, signature = google_token(key).split(".")
        payload = google_token(key, email="boss@example.com").split(".")[1]
        await assert_refused(google, f"{header}.{payload}.{signature}")

    @pytest.mark.parametrize(
        "token",
        [
            "",
            "x",
            "not.a.token",
            "a.b.c.d",
            "..",
            "\ud800.b.c",
            "é.ü.ß",
            "9" * 8000,
            unsigned_parts([], {}),
            unsigned_parts({}, {}),
            unsigned_parts({"alg": "RS256", "kid": "a1"}, {}),
            unsigned_parts({"alg": "RS256", "kid": ["a1"]}, {}),
            unsigned_parts({"alg": ["RS256"], "kid": 1}, {}),
            unsigned_parts({"alg": "RS256", "kid": "a1"}, 1),
            unsigned_parts(b"\xff\xfe", {}),
            unsigned_parts({"alg": "RS256", "kid": "a1"}, b"[" * 5000),
            unsigned_parts(b"[" * 5000, {}),
        ],
    )
    async def test_garbage(self, google: GoogleAuthIdentities, token: str) -> None:
        await assert_refused(google, token)

    async def test_without_an_address(self, google: GoogleAuthIdentities, key: SigningKey) -> None:
        with pytest.raises(InvalidGoogleTokenError, match="has no email address"):
            await google.identify(google_token(key, without=("email", "email_verified")))

    @pytest.mark.parametrize("claims", [{"email_verified": False}, {"email_verified": "true"}])
    async def test_unverified_address_is_told(
        self, google: GoogleAuthIdentities, key: SigningKey, claims: dict[str, Any]
    ) -> None:
        assert not (await google.identify(google_token(key, **claims))).email_verified

    async def test_unknown_kid_is_refused_and_asks_nobody(
        self, google: GoogleAuthIdentities, key: SigningKey, server: CertificateServer
    ) -> None:
        await google.identify(google_token(key))
        for number in range(20):
            await assert_refused(google, google_token(key, kid=f"unknown{number}"))
        assert server.fetches == 1


class TestCertificates:
    async def test_fetched_once_for_all(
        self, google: GoogleAuthIdentities, key: SigningKey, other_key: SigningKey, server: CertificateServer
    ) -> None:
        await asyncio.gather(*(google.identify(google_token(k)) for k in (key, other_key) * 5))
        await google.identify(google_token(key))
        assert server.fetches == 1

    async def test_fetched_again_when_their_time_is_over(
        self, google: GoogleAuthIdentities, key: SigningKey, server: CertificateServer
    ) -> None:
        server.age = timedelta(hours=2)
        await google.identify(google_token(key))
        new_key = SigningKey("c3")
        server.certificates, server.age = {new_key.kid: new_key.certificate}, timedelta()
        await google.identify(google_token(new_key))
        await assert_refused(google, google_token(key))
        assert server.fetches == 2

    async def test_no_server(self, key: SigningKey) -> None:
        google = GoogleAuthIdentities([CLIENT_ID], f"http://127.0.0.1:{free_port()}/certs")
        with pytest.raises(UnavailableError, match="Google cannot be reached right now"):
            await google.identify(google_token(key))
        google.close()

    async def test_fresh_ones_last_without_the_server(
        self, google: GoogleAuthIdentities, key: SigningKey, server: CertificateServer
    ) -> None:
        await google.identify(google_token(key))
        server.status = 500
        await google.identify(google_token(key))
        assert server.fetches == 1

    async def test_old_ones_do_not(
        self, google: GoogleAuthIdentities, key: SigningKey, server: CertificateServer
    ) -> None:
        server.age = timedelta(hours=2)
        await google.identify(google_token(key))
        server.status = 500
        with pytest.raises(UnavailableError):
            await google.identify(google_token(key))

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (500, b"{}"),
            (404, b"{}"),
            (200, b""),
            (200, b"<html>sign in to this hotel's network</html>"),
            (200, b"{}"),
            (200, b"[]"),
            (200, b"null"),
            (200, b'"keys"'),
            (200, b'{"keys": []}'),
            (200, b'{"keys": [{"kty": "RSA", "kid": "a1"}]}'),
            (200, b'{"a1": "-----BEGIN CERTIFICATE-----"}'),
            (200, b'{"a1": 1}'),
            (200, b"[" * 100_000),
        ],
    )
    async def test_server_that_answers_none_is_as_good_as_away_and_is_asked_again(
        self, server: CertificateServer, key: SigningKey, status: int, body: bytes
    ) -> None:
        """Garbage that says it is good for an hour is not kept for one."""
        clock = Hands()
        google = GoogleAuthIdentities([CLIENT_ID], server.url, pause_s=5, monotonic=clock)
        server.status, server.body = status, body
        for token in (google_token(key), "garbage", google_token(key)):
            with pytest.raises(UnavailableError):
                await google.identify(token)
        assert server.fetches == 1
        server.status, server.body = 200, None
        clock.now += 5
        await google.identify(google_token(key))
        assert server.fetches == 2
        google.close()


def _payload_of(token: str) -> bytes:
    return base64.urlsafe_b64decode(token.split(".")[1] + "==")


def _hs256(token: str, secret: bytes, kid: str) -> str:
    header = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": kid}).encode()).decode().rstrip("=")
    signed = f"{header}.{token.split('.')[1]}"
    signature = hmac.new(secret, signed.encode(), "sha256").digest()
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
