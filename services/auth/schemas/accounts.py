"""Accounts as their owners and administrators see them."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from libs.common.contracts.identity import Plan
from services.auth.domain.users import User
from services.auth.schemas.fields import Email, NewPassword, Password


class UserOut(BaseModel):
    """An account as its owner and administrators see it."""

    id: str
    username: str
    email: str
    full_name: str | None
    is_active: bool
    is_verified: bool
    avatar_url: str | None
    subscription_plan: Plan
    created_at: datetime
    last_login: datetime | None

    @classmethod
    def of(cls, user: User) -> Self:
        """As the API answers."""
        return cls(
            id=user.id,
            username=user.username,
            email=user.email,
            full_name=user.full_name,
            is_active=user.is_active,
            is_verified=user.is_verified,
            avatar_url=user.avatar_url,
            subscription_plan=user.plan,
            created_at=user.created_at,
            last_login=user.last_login,
        )


class UserPatch(BaseModel):
    """What an administrator changes; what is missing stays."""

    model_config = ConfigDict(extra="forbid")

    subscription_plan: Plan | None = None
    is_active: bool | None = None
    is_verified: bool | None = Field(default=None, description="Whether the address counts as verified")
    unlock: bool = Field(default=False, description="Forget wrong passwords and lift the lock")


class MessageOut(BaseModel):
    """A sentence for people."""

    message: str


class EmailIn(BaseModel):
    """Where the mail is to go."""

    email: Email = Field(examples=["ada@example.com"])


class LinkIn(BaseModel):
    """The token of a mailed link."""

    token: str = Field(min_length=1, max_length=128, repr=False)


class ResetIn(LinkIn):
    """Another password for who forgot it."""

    new_password: NewPassword = Field(repr=False)


class ChangePasswordIn(BaseModel):
    """Another password for who knows the present one."""

    current_password: Password = Field(repr=False)
    new_password: NewPassword = Field(repr=False)


class DeletionIn(BaseModel):
    """Confirms a deletion. An account that has no password needs none, but to have signed in just now."""

    password: str | None = Field(default=None, min_length=1, max_length=1024, repr=False)
