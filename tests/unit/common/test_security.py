"""Tokens, revocations, sealing: what must be refused is refused."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from libs.common.clock import utc_now
from libs.common.context import Cause
from libs.common.contracts.events import Event
from libs.common.contracts.identity import Plan
from libs.common.contracts.users import UserSessionsRevoked
from libs.common.errors import UnauthenticatedError, UnavailableError
from libs.common.security.api_keys import ApiKeyVerifier
from libs.common.security.keys import JwksClient
from libs.common.security.revocation import Revocations
from libs.common.security.sealing import SealBrokenError, Sealer
from libs.common.security.tokens import TokenVerifier, token_claims
from libs.common.settings import CommonSettings
from tests.support.tokens import NoApiKeys, TestIssuer


@pytest.fixture
def settings() -> CommonSettings:
    return CommonSettings(_env_file=None)


@pytest.fixture
def issuer(settings: CommonSettings) -> TestIssuer:
    return TestIssuer(settings)


@pytest.fixture
def revocations() -> Revocations:
    return Revocations(None, token_life_s=60.0)  # type: ignore[arg-type]  # Redis is not asked here


@pytest.fixture
def verifier(issuer: TestIssuer, revocations: Revocations, settings: CommonSettings) -> TokenVerifier:
    return TokenVerifier(
        issuer, revocations, ApiKeyVerifier(NoApiKeys()), issuer=settings.jwt_issuer, audience=settings.jwt_audience
    )


def forged(issuer: TestIssuer, key: Any, algorithm: str, *, kid: str = "test", **changes: Any) -> str:
    claims = jwt.decode(issuer.token("victim"), options={"verify_signature": False})
    return jwt.encode({**claims, **changes}, key, algorithm=algorithm, headers={"kid": kid})


class TestVerify:
    async def test_a_good_token_names_its_caller(self, verifier: TokenVerifier, issuer: TestIssuer) -> None:
        principal = await verifier.verify(issuer.token("u1", plan=Plan.PRO))
        assert (principal.user_id, principal.plan, principal.is_verified) == ("u1", Plan.PRO, True)

    async def test_another_key_is_refused(self, verifier: TokenVerifier, issuer: TestIssuer) -> None:
        with pytest.raises(UnauthenticatedError):
            await verifier.verify(forged(issuer, Ed25519PrivateKey.generate(), "EdDSA"))

    async def test_an_unknown_kid_is_refused(self, verifier: TokenVerifier, issuer: TestIssuer) -> None:
        with pytest.raises(UnauthenticatedError):
            await verifier.verify(forged(issuer, Ed25519PrivateKey.generate(), "EdDSA", kid="other"))

    async def test_no_signature_is_refused(self, verifier: TokenVerifier, issuer: TestIssuer) -> None:
        with pytest.raises(UnauthenticatedError):
            await verifier.verify(forged(issuer, None, "none"))

    async def test_the_public_key_as_hmac_secret_is_refused(self, verifier: TokenVerifier, issuer: TestIssuer) -> None:
        public = await issuer.get("test")
        assert public is not None
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        with pytest.raises(UnauthenticatedError):
            await verifier.verify(forged(issuer, raw, "HS256"))

    @pytest.mark.parametrize("changed", ["issuer", "audience"])
    async def test_another_issuer_or_audience_is_refused(
        self, verifier: TokenVerifier, issuer: TestIssuer, settings: CommonSettings, changed: str
    ) -> None:
        elsewhere = settings.model_copy(update={f"jwt_{changed}": "elsewhere"})
        issuer._settings = elsewhere
        with pytest.raises(UnauthenticatedError):
            await verifier.verify(issuer.token())

    async def test_a_token_of_a_machine_whose_clock_is_ahead_is_good(
        self, verifier: TokenVerifier, issuer: TestIssuer
    ) -> None:
        ahead = int((utc_now() + timedelta(seconds=30)).timestamp())
        claims = jwt.decode(issuer.token("u1"), options={"verify_signature": False})
        principal = await verifier.verify(issuer.signed({**claims, "iat": ahead}))
        assert principal.user_id == "u1"

    async def test_an_expired_token_is_refused(self, verifier: TokenVerifier, issuer: TestIssuer) -> None:
        with pytest.raises(UnauthenticatedError, match="expired"):
            await verifier.verify(issuer.token(life_s=-1))

    @given(text=st.text(max_size=200))
    async def test_garbage_is_refused_and_nothing_else_happens(self, text: str) -> None:
        settings = CommonSettings(_env_file=None)
        revocations = Revocations(None, token_life_s=1.0)  # type: ignore[arg-type]
        verifier = TokenVerifier(
            TestIssuer(settings), revocations, ApiKeyVerifier(NoApiKeys()), issuer="i", audience="a"
        )
        with pytest.raises(UnauthenticatedError):
            await verifier.verify(text)

    async def test_a_remembered_token_dies_with_its_session(
        self, verifier: TokenVerifier, issuer: TestIssuer, revocations: Revocations
    ) -> None:
        token = issuer.token("u1")
        principal = await verifier.verify(token)
        data = UserSessionsRevoked(user_id="u1", session_ids=[principal.session_id], reason="logout")
        event = Event.new(data, subject="u1", source="auth", cause=Cause())
        revocations.on_message(event.model_dump_json().encode())
        with pytest.raises(UnauthenticatedError):
            await verifier.verify(token)

    async def test_memory_is_bounded(
        self, verifier: TokenVerifier, issuer: TestIssuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("libs.common.security.tokens._CACHED_TOKENS", 3)
        for _ in range(10):
            await verifier.verify(issuer.token())
        assert len(verifier._seen) == 3


def test_claims_hold_no_personal_data() -> None:
    now = utc_now()
    claims = token_claims(
        user_id="u",
        session_id="s",
        plan=Plan.FREE,
        is_verified=False,
        issuer="i",
        audience="a",
        issued_at=now,
        expires_at=now + timedelta(minutes=30),
    )
    assert set(claims) == {"sub", "sid", "plan", "verified", "iss", "aud", "iat", "exp"}
    assert claims["exp"] - claims["iat"] == 1800


class TestRevocationEvents:
    @pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b"{}", b'{"type":"devpocket.user.locked.v1"}'])
    def test_garbage_is_ignored(self, revocations: Revocations, payload: bytes) -> None:
        revocations.on_message(payload)

    @pytest.mark.parametrize("time", ["0001-01-01T00:00:00", "9999-12-31T23:59:59Z"])
    def test_a_time_that_cannot_be_does_no_harm(self, revocations: Revocations, time: str) -> None:
        data = UserSessionsRevoked(user_id="u1", session_ids=["s1"], reason="logout")
        event = Event.new(data, subject="u1", source="auth", cause=Cause())
        revocations.on_message(json.dumps({**json.loads(event.model_dump_json()), "time": time}).encode())
        assert all(until < utc_now().timestamp() + 61.0 for until in revocations._dead.values())

    def test_listeners_hear_each_session_once(self, revocations: Revocations) -> None:
        heard: list[str] = []
        revocations.on_revoked(heard.append)
        revocations.add(["s1", "s2"])
        revocations.add(["s2", "s3"])
        assert heard == ["s1", "s2", "s3"]


class TestSealing:
    @given(secret=st.text())
    def test_what_was_sealed_opens_again(self, secret: str) -> None:
        sealer = Sealer("k" * 32, "purpose")
        sealed = sealer.seal(secret)
        assert sealer.open(sealed) == secret
        assert len(secret) < 4 or secret not in sealed

    def test_another_key_purpose_or_a_changed_byte_does_not_open(self) -> None:
        sealed = Sealer("k" * 32, "purpose").seal("secret")
        raw = bytearray(base64.urlsafe_b64decode(sealed))
        raw[20] ^= 1
        for sealer, text in [
            (Sealer("x" * 32, "purpose"), sealed),
            (Sealer("k" * 32, "other"), sealed),
            (Sealer("k" * 32, "purpose"), base64.urlsafe_b64encode(raw).decode()),
            (Sealer("k" * 32, "purpose"), "not sealed at all"),
        ]:
            with pytest.raises(SealBrokenError):
                sealer.open(text)


class TestSettings:
    @pytest.mark.parametrize("key", [None, "short"])
    def test_production_refuses_a_default_or_short_secret_key(self, key: str | None) -> None:
        given_key: dict[str, Any] = {} if key is None else {"secret_key": key}
        with pytest.raises(ValueError, match="SECRET_KEY must be set"):
            CommonSettings(_env_file=None, environment="production", **given_key)

    def test_no_secret_shows_when_settings_are_printed(self) -> None:
        settings = CommonSettings(_env_file=None, nats_url="nats://user:hunter2@h", secret_key="hunter2")
        assert "hunter2" not in f"{settings} {settings!r} {json.dumps(settings.model_dump(mode='json'))}"


class TestSigningKeys:
    async def test_another_replica_of_auth_is_asked_when_one_is_away(self) -> None:
        asked: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request.url.host)
            if request.url.host == "one":
                raise httpx.ConnectError("away")
            public = Ed25519PrivateKey.generate().public_key()
            key = jwt.algorithms.OKPAlgorithm.to_jwk(public, as_dict=True)
            return httpx.Response(200, json={"keys": [{**key, "kid": "k1", "alg": "EdDSA"}]})

        keys = JwksClient("http://one/keys, http://two/keys", httpx.AsyncClient(transport=httpx.MockTransport(answer)))
        await keys.probe()
        assert await keys.get("k1") is not None
        assert asked == ["one", "two"]
        await keys.close()

    async def test_nobody_there_is_said_with_all_addresses(self) -> None:
        def answer(_: httpx.Request) -> httpx.Response:
            return httpx.Response(503)

        keys = JwksClient("http://one,http://two", httpx.AsyncClient(transport=httpx.MockTransport(answer)))
        with pytest.raises(UnavailableError, match="http://one, http://two"):
            await keys.probe()
        await keys.close()
