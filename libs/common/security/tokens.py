"""Access tokens: JWT (RFC 7519) signed with EdDSA (RFC 8037), checked the same way in every service."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

import jwt

from libs.common.contracts.identity import Plan
from libs.common.errors import UnauthenticatedError
from libs.common.security.api_keys import PREFIX as API_KEY_PREFIX
from libs.common.security.api_keys import ApiKeyVerifier
from libs.common.security.keys import KeySource
from libs.common.security.principal import Principal
from libs.common.security.revocation import Revocations

ALGORITHM = "EdDSA"
_REQUIRED = ["sub", "sid", "plan", "exp", "iat", "iss", "aud"]
# About 600 bytes each.
_CACHED_TOKENS = 20_000
_MAX_TOKEN_CHARS = 4096
_NEWS_WITHIN_S = 1.0
_LOOK_EVERY_S = 0.05


class TokenVerifier:
    """Checks what comes as a bearer token: access tokens, and API keys by `api_keys`.

    Good access tokens are remembered, bounded, until they expire or their session is revoked.
    """

    def __init__(
        self, keys: KeySource, revocations: Revocations, api_keys: ApiKeyVerifier, *, issuer: str, audience: str
    ) -> None:
        self._keys = keys
        self._revocations = revocations
        self._api_keys = api_keys
        self._issuer = issuer
        self._audience = audience
        self._seen: OrderedDict[str, tuple[Principal, float]] = OrderedDict()

    async def verify(self, token: str) -> Principal:
        """The caller. Raises UnauthenticatedError, or UnavailableError while keys cannot be loaded."""
        if token.startswith(API_KEY_PREFIX):
            return await self._verify_api_key(token)
        found = self._seen.get(token)
        if found is None:
            found = await self._check(token)
            self._remember(token, found)
        principal, expires_at = found
        if expires_at <= time.time():
            self._seen.pop(token, None)
            raise UnauthenticatedError("Token has expired")
        if self._revocations.is_revoked(principal.session_id):
            self._seen.pop(token, None)
            raise UnauthenticatedError("Session has ended, please sign in again")
        return principal

    async def _verify_api_key(self, text: str) -> Principal:
        """What was open by a key ends with its owner's epoch; whether the key goes on in the next one, its owner's
        newest state tells, which may be a moment behind the revocation."""
        principal = await self._api_keys.verify(text)
        deadline = time.monotonic() + _NEWS_WITHIN_S
        while self._revocations.is_revoked(principal.session_id):
            if time.monotonic() > deadline:
                raise UnauthenticatedError("The API key is unknown or was revoked")
            self._api_keys.forget(text)
            principal = await self._api_keys.verify(text)
            if self._revocations.is_revoked(principal.session_id):
                await asyncio.sleep(_LOOK_EVERY_S)
        return principal

    async def _check(self, token: str) -> tuple[Principal, float]:
        if len(token) > _MAX_TOKEN_CHARS:
            raise UnauthenticatedError
        try:
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            if header.get("alg") != ALGORITHM or not isinstance(kid, str):
                raise UnauthenticatedError
            key = await self._keys.get(kid)
            if key is None:
                raise UnauthenticatedError
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=self._issuer,
                # Clocks of machines differ by a little; when a token begins matters to nobody, when it ends does.
                options={"require": _REQUIRED, "verify_iat": False},
            )
            return _principal(claims), float(claims["exp"])
        except jwt.ExpiredSignatureError as error:
            raise UnauthenticatedError("Token has expired") from error
        except (jwt.PyJWTError, ValueError) as error:
            raise UnauthenticatedError from error

    def _remember(self, token: str, found: tuple[Principal, float]) -> None:
        self._seen[token] = found
        if len(self._seen) > _CACHED_TOKENS:
            self._seen.popitem(last=False)


def _principal(claims: dict[str, Any]) -> Principal:
    return Principal(
        user_id=str(claims["sub"]),
        session_id=str(claims["sid"]),
        plan=Plan(claims["plan"]),
        is_verified=bool(claims.get("verified", False)),
        expires_at=datetime.fromtimestamp(claims["exp"], UTC),
    )


def token_claims(
    *,
    user_id: str,
    session_id: str,
    plan: Plan,
    is_verified: bool,
    issuer: str,
    audience: str,
    issued_at: datetime,
    expires_at: datetime,
) -> dict[str, Any]:
    """The claims of an access token; the counterpart of what `TokenVerifier` reads."""
    return {
        "sub": user_id,
        "sid": session_id,
        "plan": plan.value,
        "verified": is_verified,
        "iss": issuer,
        "aud": audience,
        "iat": int(issued_at.timestamp()),
        "exp": int(expires_at.timestamp()),
    }
