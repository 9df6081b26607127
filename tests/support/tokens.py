"""Access tokens for services under test, signed by a key of our own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.common.clock import utc_now
from libs.common.contracts.identity import Plan
from libs.common.ids import new_id
from libs.common.security.api_keys import KnownKey
from libs.common.security.tokens import ALGORITHM, token_claims
from libs.common.settings import CommonSettings


class NoApiKeys:
    """A `KeyDirectory` without keys."""

    async def find(self, key_id: str) -> KnownKey | None:
        """None."""
        return None


class TestIssuer:
    """Signs tokens and is the `KeySource` that accepts them: pass it as `keys=` to Platform."""

    __test__ = False

    def __init__(self, settings: CommonSettings) -> None:
        self._settings = settings
        self._key = Ed25519PrivateKey.generate()

    async def get(self, kid: str) -> Any | None:
        """The public key."""
        return self._key.public_key() if kid == "test" else None

    def token(
        self,
        user_id: str | None = None,
        *,
        session_id: str | None = None,
        plan: Plan = Plan.FREE,
        verified: bool = True,
        life_s: float = 600.0,
    ) -> str:
        """An access token; a fresh user and session when none is named."""
        now = utc_now()
        claims = token_claims(
            user_id=user_id or new_id(),
            session_id=session_id or new_id(),
            plan=plan,
            is_verified=verified,
            issuer=self._settings.jwt_issuer,
            audience=self._settings.jwt_audience,
            issued_at=now,
            expires_at=now + timedelta(seconds=life_s),
        )
        return self.signed(claims)

    def signed(self, claims: dict[str, Any]) -> str:
        """A token that says this."""
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": "test"})

    def headers(self, user_id: str | None = None, **changes: Any) -> dict[str, str]:
        """The Authorization header with `token(...)`."""
        return {"Authorization": f"Bearer {self.token(user_id, **changes)}"}
