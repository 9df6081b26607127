"""Signing in, and the sessions that come of it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from services.auth.domain.sessions import Session
from services.auth.schemas.fields import DeviceName, Email, NewPassword, Password, Username
from services.auth.service.sessions import Tokens


class RegisterIn(BaseModel):
    """A new account."""

    username: Username = Field(examples=["ada"])
    email: Email = Field(examples=["ada@example.com"])
    password: NewPassword = Field(repr=False)
    full_name: str | None = Field(default=None, max_length=100)


class LoginIn(BaseModel):
    """Credentials."""

    username_or_email: str = Field(min_length=1, max_length=320, examples=["ada"])
    password: Password = Field(repr=False)
    device_name: DeviceName = None


class GoogleIn(BaseModel):
    """An ID token that the app got from Google."""

    token: str = Field(min_length=1, max_length=8192, repr=False)
    device_name: DeviceName = None


class RefreshIn(BaseModel):
    """The refresh token that came last."""

    refresh_token: str = Field(min_length=1, max_length=1024, repr=False)


class TokensOut(BaseModel):
    """Tokens; `expires_in` is the access token's life in seconds."""

    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the name of a scheme
    expires_in: int

    @classmethod
    def of(cls, tokens: Tokens) -> Self:
        """As the API answers."""
        return cls(
            access_token=tokens.access.text,
            refresh_token=str(tokens.refresh),
            expires_in=tokens.access.expires_in_s,
        )


class SessionOut(BaseModel):
    """A device that is signed in. `current`: the one that asks."""

    id: str
    name: str
    address: str | None = Field(description="Where it was seen last")
    created_at: datetime
    last_seen: datetime
    expires_at: datetime = Field(description="When it is signed out unless it is used")
    current: bool

    @classmethod
    def of(cls, session: Session, current: str) -> Self:
        """As the API answers. `current`: the id of the caller's own session."""
        return cls(
            id=session.id,
            name=session.device,
            address=session.address,
            created_at=session.created_at,
            last_seen=session.last_used_at,
            expires_at=session.expires_at,
            current=session.id == current,
        )
