"""API keys as their owner sees them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field

from libs.common.contracts.identity import Scope
from libs.common.security.api_keys import ApiKey
from services.auth.domain.api_keys import MAX_KEY_DAYS, StoredKey, WantedKey


def check_key_name(text: str) -> str:
    """Without blanks around it. Raises ValueError."""
    name = " ".join(text.split())
    if not name:
        raise ValueError("Name must not be empty")
    return name


class ApiKeyIn(BaseModel):
    """A new key. Without `expires_in_days` it works until it is deleted."""

    name: Annotated[str, Field(min_length=1, max_length=100, examples=["laptop"]), AfterValidator(check_key_name)]
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope))
    expires_in_days: int | None = Field(default=None, ge=1, le=MAX_KEY_DAYS)

    def wanted(self) -> WantedKey:
        """As the domain has it."""
        life = timedelta(days=self.expires_in_days) if self.expires_in_days is not None else None
        return WantedKey(self.name, frozenset(self.scopes), life)


class ApiKeyOut(BaseModel):
    """A key without what makes it one."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    last_address: str | None = Field(description="Where it was used last")

    @classmethod
    def of(cls, key: StoredKey) -> Self:
        """As the API answers."""
        return cls(
            id=key.id,
            name=key.name,
            scopes=list(key.scopes),
            created_at=key.created_at,
            expires_at=key.expires_at,
            last_used_at=key.last_used_at,
            last_address=key.last_address,
        )


class NewApiKeyOut(ApiKeyOut):
    """A new key, with `key` this once only: it goes where a bearer token goes."""

    key: str

    @classmethod
    def made(cls, stored: StoredKey, key: ApiKey) -> Self:
        """As the API answers."""
        return cls(**ApiKeyOut.of(stored).model_dump(), key=str(key))
