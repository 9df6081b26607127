"""API keys: what their owner decides about them. Pure; what a key looks like is in libs.common.security.api_keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.common.contracts.identity import Plan, Scope
from libs.common.contracts.users import UserApiKeyCreated
from libs.common.security.api_keys import ApiKey
from services.auth.domain.users import User
from services.auth.errors import ScopeNotAllowedError

MAX_KEYS = 50
MAX_KEY_DAYS = 3650


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A key without its secret. `expires_at` None: never."""

    id: str
    user_id: str
    name: str
    scopes: tuple[Scope, ...]
    secret_hash: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = None
    last_address: str | None = None

    def __repr__(self) -> str:
        return f"StoredKey({self.id})"

    def created(self, owner: User) -> UserApiKeyCreated:
        """The event of a new key."""
        return UserApiKeyCreated(
            **owner.state,
            key_id=self.id,
            name=self.name,
            scopes=list(self.scopes),
            secret_hash=self.secret_hash,
            expires_at=self.expires_at,
        )


@dataclass(frozen=True, slots=True)
class WantedKey:
    """What somebody asks for. `life` None: for ever."""

    name: str
    scopes: frozenset[Scope]
    life: timedelta | None


def new_key(owner: User, key: ApiKey, wanted: WantedKey, now: datetime) -> StoredKey:
    """Raises ScopeNotAllowedError: an administrator's scope is for administrators."""
    if Scope.ADMIN in wanted.scopes and owner.plan is not Plan.ADMIN:
        raise ScopeNotAllowedError
    return StoredKey(
        id=key.id,
        user_id=owner.id,
        name=wanted.name,
        scopes=tuple(scope for scope in Scope if scope in wanted.scopes),
        secret_hash=key.secret_hash,
        created_at=now,
        expires_at=now + wanted.life if wanted.life is not None else None,
    )
