"""Refresh, logout, forged tokens and keys, over HTTP on real servers."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI

from libs.common import mongo
from libs.common.clock import utc_now
from libs.common.contracts.identity import Plan
from libs.common.errors import UnauthenticatedError
from libs.common.platform import Platform
from libs.common.security.api_keys import ApiKeyVerifier
from libs.common.security.keys import JwksClient
from libs.common.security.tokens import TokenVerifier, token_claims
from libs.common.settings import CommonSettings
from services.auth.keyring import PUBLISHED_AHEAD
from services.auth.main import create_app
from services.auth.settings import AuthSettings
from tests.fakes.auth import ManualClock
from tests.integration.auth.conftest import (
    ADMIN,
    assert_problem,
    bearer,
    login,
    me,
    refresh,
    register,
    signed_in,
)
from tests.support.app import running_app

JWKS = "/api/v1/auth/.well-known/jwks.json"
REFUSED = "Refresh token is invalid or has expired, please sign in again"

MakeAuthSettings = Callable[..., AuthSettings]


class TestRefresh:
    async def test_rotates(self, client: httpx.AsyncClient) -> None:
        first = await signed_in(client)
        answer = await refresh(client, first)
        assert answer.status_code == 200
        second = answer.json()
        assert set(second) == set(first)
        assert second["refresh_token"] != first["refresh_token"]
        assert (await me(client, second)).status_code == 200

    async def test_reuse_ends_the_whole_family(self, client: httpx.AsyncClient) -> None:
        first = await signed_in(client)
        second = (await refresh(client, first)).json()
        third = (await refresh(client, second)).json()
        assert_problem(await refresh(client, first), 401, "invalid_refresh_token", REFUSED)
        assert_problem(await refresh(client, third), 401, "invalid_refresh_token", REFUSED)
        assert (await me(client, third)).status_code == 401

    async def test_of_parallel_uses_one_succeeds(self, client: httpx.AsyncClient) -> None:
        tokens = await signed_in(client)
        answers = await asyncio.gather(*(refresh(client, tokens) for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [200] + [401] * 9

    @pytest.mark.parametrize("text", ["x", "A" * 86, "A" * 1024, "é", "\x00", "eyJhbGciOiJub25lIn0.e30."])
    async def test_made_up(self, client: httpx.AsyncClient, text: str) -> None:
        answer = await refresh(client, {"refresh_token": text})
        assert_problem(answer, 401, "invalid_refresh_token", REFUSED)

    async def test_an_access_token_is_no_refresh_token(self, client: httpx.AsyncClient) -> None:
        tokens = await signed_in(client)
        assert (await refresh(client, {"refresh_token": tokens["access_token"]})).status_code == 401
        assert (await me(client, {"access_token": tokens["refresh_token"]})).status_code == 401

    async def test_only_hashes_are_stored(self, client: httpx.AsyncClient, auth_app: FastAPI) -> None:
        tokens = await signed_in(client)
        database = auth_app.state.platform.database
        stored = repr([document async for document in database["sessions"].find({})])
        assert tokens["refresh_token"] not in stored
        assert tokens["refresh_token"][:43] not in stored


class TestLogout:
    async def test_both_tokens_are_dead_at_once(self, client: httpx.AsyncClient) -> None:
        tokens = await signed_in(client)
        other = await signed_in(client, new=False)
        answer = await client.post("/api/v1/auth/logout", headers=bearer(tokens))
        assert (answer.status_code, answer.json()) == (200, {"message": "Successfully logged out"})
        assert (await me(client, tokens)).status_code == 401
        assert (await refresh(client, tokens)).status_code == 401
        assert (await client.post("/api/v1/auth/logout", headers=bearer(tokens))).status_code == 401
        assert (await me(client, other)).status_code == 200

    async def test_in_every_replica_and_in_one_that_starts_later(
        self, auth_app: FastAPI, make_auth_settings: MakeAuthSettings
    ) -> None:
        async with running_app(auth_app) as one, running_app(create_app(make_auth_settings())) as two:
            tokens = await signed_in(one)
            assert (await me(two, tokens)).status_code == 200
            await one.post("/api/v1/auth/logout", headers=bearer(tokens))
            revoked = asyncio.Event()
            two_app: FastAPI = two._transport.app  # type: ignore[attr-defined]
            two_app.state.platform.revocations.on_revoked(lambda _: revoked.set())
            if (await me(two, tokens)).status_code != 401:
                await asyncio.wait_for(revoked.wait(), 30)
            assert (await me(two, tokens)).status_code == 401
            async with running_app(create_app(make_auth_settings())) as three:
                assert (await me(three, tokens)).status_code == 401

    async def test_nobody(self, client: httpx.AsyncClient) -> None:
        assert (await client.post("/api/v1/auth/logout")).status_code == 401


def claims_of(settings: CommonSettings, user_id: str, **changes: Any) -> dict[str, Any]:
    now = utc_now()
    claims = token_claims(
        user_id=user_id,
        session_id="forged",
        plan=Plan.ADMIN,
        is_verified=True,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        issued_at=now,
        expires_at=now + timedelta(minutes=5),
    )
    return {**claims, **changes}


class TestForgedTokens:
    async def test_are_refused(self, client: httpx.AsyncClient, auth_app: FastAPI) -> None:
        settings = auth_app.state.platform.settings
        tokens = await signed_in(client)
        user_id = (await me(client, tokens)).json()["id"]
        key = await auth_app.state.auth.ring.signing_key(utc_now())
        claims = claims_of(settings, user_id)
        public_raw = key.public.public_bytes_raw()
        public_pem = key.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        own = Ed25519PrivateKey.generate()

        def signed(payload: dict[str, Any], private: Any = key.private, **header: Any) -> str:
            return jwt.encode(payload, private, algorithm="EdDSA", headers={"kid": key.kid, **header})

        forged = {
            "no signature": _by_hand({"alg": "none", "typ": "JWT", "kid": key.kid}, claims, b""),
            "hmac with the public key": _hmac({"alg": "HS256", "typ": "JWT", "kid": key.kid}, claims, public_pem),
            "hmac with the raw public key": _hmac({"alg": "HS256", "kid": key.kid}, claims, public_raw),
            "another key under this kid": signed(claims, own),
            "unknown kid": signed(claims, own, kid="unknown"),
            "kid is no text": _by_hand({"alg": "EdDSA", "kid": 7}, claims, b"x"),
            "no kid": jwt.encode(claims, key.private, algorithm="EdDSA"),
            "expired": signed({**claims, "exp": int(utc_now().timestamp()) - 1}),
            "other audience": signed({**claims, "aud": "another"}),
            "other issuer": signed({**claims, "iss": "another"}),
            "no session": signed({k: v for k, v in claims.items() if k != "sid"}),
            "unknown plan": signed({**claims, "plan": "root"}),
            "changed by a character": tokens["access_token"][:-4] + "AAAA",
            "empty": "",
            "garbage": "a.b.c",
            "huge": "a" * 10_000,
        }
        for name, token in forged.items():
            answer = await me(client, {"access_token": token})
            assert answer.status_code == 401, name
            assert (await client.get("/api/v1/users", headers=bearer({"access_token": token}))).status_code == 401
        assert (await me(client, {"access_token": signed(claims)})).status_code == 200, "the control works"


def _by_hand(header: dict[str, Any], claims: dict[str, Any], signature: bytes) -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def _hmac(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    """By hand, because PyJWT refuses to sign with a public key."""
    import hashlib
    import hmac

    unsigned = _by_hand(header, claims, b"").rstrip(".")
    digest = hmac.new(secret, unsigned.encode(), hashlib.sha256).digest()
    return f"{unsigned}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


class TestKeys:
    async def test_shape(self, client: httpx.AsyncClient) -> None:
        answer = await client.get(JWKS)
        assert answer.status_code == 200
        (key,) = answer.json()["keys"]
        assert set(key) == {"kty", "crv", "use", "alg", "kid", "x"}
        assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("OKP", "Ed25519", "sig", "EdDSA")
        assert "max-age=60" in answer.headers["Cache-Control"]

    async def test_another_service_checks_tokens_with_them(
        self, client: httpx.AsyncClient, auth_app: FastAPI, make_settings: Callable[..., Any]
    ) -> None:
        tokens = await signed_in(client)
        settings = make_settings(CommonSettings, jwks_url=f"http://test{JWKS}")
        platform = Platform(settings, "envs")
        async with platform.open():
            keys = JwksClient(settings.jwks_url, httpx.AsyncClient(transport=httpx.ASGITransport(auth_app)))
            verifier = TokenVerifier(
                keys,
                platform.revocations,
                ApiKeyVerifier(platform.identities),
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
            )
            principal = await verifier.verify(tokens["access_token"])
            assert principal.user_id == (await me(client, tokens)).json()["id"]
            assert (principal.plan, principal.is_verified) == (Plan.FREE, True)
            await client.post("/api/v1/auth/logout", headers=bearer(tokens))
            await platform.revocations.load()
            with pytest.raises(UnauthenticatedError):
                await verifier.verify(tokens["access_token"])
            await keys.close()

    async def test_replicas_that_start_together_share_one_key(self, make_auth_settings: MakeAuthSettings) -> None:
        apps = [create_app(make_auth_settings()) for _ in range(3)]
        async with running_app(apps[0]) as one, running_app(apps[1]) as two, running_app(apps[2]) as three:
            sets = [(await client.get(JWKS)).json() for client in (one, two, three)]
            assert sets[0] == sets[1] == sets[2]
            assert len(sets[0]["keys"]) == 1
        await asyncio.gather(*(self._load_fresh(make_auth_settings(database_name="race")) for _ in range(8)))

    async def _load_fresh(self, settings: AuthSettings) -> None:
        from services.auth.assembly import make_key_ring

        client = mongo.connect(settings)
        ring = make_key_ring(settings)
        ring.attach(mongo.database(client, settings, "auth"))
        await ring.load()
        assert await mongo.database(client, settings, "auth")["signing_keys"].count_documents({}) == 1
        await mongo.close(client)

    async def test_rotation_overlaps(self, make_auth_settings: MakeAuthSettings) -> None:
        clock = ManualClock()
        rotates_at = utc_now() - PUBLISHED_AHEAD
        clock.now = rotates_at - timedelta(days=30)
        app = create_app(make_auth_settings(), clock=clock)
        ring = app.state.auth.ring
        async with running_app(app) as client:
            first = await ring.signing_key(clock())
            clock.now = rotates_at
            await ring.load()
            assert len((await client.get(JWKS)).json()["keys"]) == 2
            assert (await ring.signing_key(clock())).kid == first.kid
            old = await signed_in(client)
            clock.now = rotates_at + PUBLISHED_AHEAD
            new = await signed_in(client, new=False)
            kids = [jwt.get_unverified_header(tokens["access_token"])["kid"] for tokens in (old, new)]
            assert kids[0] == first.kid != kids[1]
            assert [(await me(client, tokens)).status_code for tokens in (old, new)] == [200, 200]
            clock.now += timedelta(minutes=36)
            await ring.load()
            assert [key["kid"] for key in (await client.get(JWKS)).json()["keys"]] == [kids[1]]

    async def test_sealed_at_rest_and_useless_with_another_secret(
        self, make_auth_settings: MakeAuthSettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with running_app(create_app(make_auth_settings())) as client:
            old = await signed_in(client)
            (old_key,) = (await client.get(JWKS)).json()["keys"]
        app = create_app(make_auth_settings(secret_key="another-secret-key-0123456789-0123456789", log_level="ERROR"))
        async with running_app(app) as client:
            (new_key,) = (await client.get(JWKS)).json()["keys"]
            assert new_key["kid"] != old_key["kid"]
            assert (await me(client, old)).status_code == 401
            assert (await refresh(client, old)).status_code == 200
            stored = [document async for document in app.state.platform.database["signing_keys"].find({})]
            assert set(stored[0]) == {"_id", "sealed", "created_at", "signs_from"}
        assert "sealed with another SECRET_KEY" in capsys.readouterr().err


class TestVerifiedClaim:
    @pytest.mark.parametrize(
        ("required", "name", "verified"), [(True, "ada", False), (True, ADMIN, True), (False, "ada", True)]
    )
    async def test_says_what_others_need(
        self, make_auth_settings: MakeAuthSettings, required: bool, name: str, verified: bool
    ) -> None:
        settings = make_auth_settings(
            require_email_verification=required, admin_email=ADMIN, admin_password="Correct-Horse-1"
        )
        async with running_app(create_app(settings)) as client:
            await register(client)
            token = (await login(client, name)).json()["access_token"]
        claims = jwt.decode(token, options={"verify_signature": False})
        assert claims["verified"] is verified
