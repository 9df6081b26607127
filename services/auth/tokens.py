"""Access tokens as this service issues them."""

from __future__ import annotations

from datetime import datetime, timedelta

import jwt

from libs.common.security.tokens import ALGORITHM, token_claims
from services.auth.domain.users import User
from services.auth.keyring import KeyRing
from services.auth.ports import AccessToken
from services.auth.settings import AuthSettings


class JwtAccessTokens:
    """Signs with the key ring's current key.

    The claim `verified` says what other services need to know: may this user do what takes a verified address? While
    REQUIRE_EMAIL_VERIFICATION is off, everybody may.
    """

    def __init__(self, ring: KeyRing, settings: AuthSettings) -> None:
        self._ring = ring
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._life = timedelta(minutes=settings.access_token_expire_minutes)
        self._all_verified = not settings.require_email_verification

    async def issue(self, user: User, session_id: str, now: datetime) -> AccessToken:
        """For one session. Raises UnavailableError while there is no key."""
        key = await self._ring.signing_key(now)
        claims = token_claims(
            user_id=user.id,
            session_id=session_id,
            plan=user.plan,
            is_verified=user.is_verified or self._all_verified,
            issuer=self._issuer,
            audience=self._audience,
            issued_at=now,
            expires_at=now + self._life,
        )
        text = jwt.encode(claims, key.private, algorithm=ALGORITHM, headers={"kid": key.kid})
        return AccessToken(text, int(self._life.total_seconds()))
