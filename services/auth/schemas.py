"""What the API takes and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from libs.common.contracts.identity import Plan
from services.auth.domain import MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS, User, check_password, check_username
from services.auth.service.sessions import Tokens

# Self-hosted servers have users at names like these; the library offers this list for changing.
SPECIAL_USE_DOMAIN_NAMES[:] = [name for name in SPECIAL_USE_DOMAIN_NAMES if name not in {"local", "test"}]


def check_email(text: str) -> str:
    """The address with its domain in lower case. Raises ValueError."""
    try:
        return validate_email(text.strip(), check_deliverability=False).normalized
    except EmailNotValidError as error:
        raise ValueError(f"Not a valid email address: {error}") from error


Email = Annotated[str, AfterValidator(check_email), WithJsonSchema({"type": "string", "format": "email"})]
Username = Annotated[
    str,
    AfterValidator(check_username),
    WithJsonSchema({"type": "string", "minLength": 3, "maxLength": 30, "pattern": "^[A-Za-z0-9_-]+$"}),
]
NewPassword = Annotated[
    str,
    AfterValidator(check_password),
    WithJsonSchema(
        {
            "type": "string",
            "format": "password",
            "minLength": MIN_PASSWORD_CHARS,
            "maxLength": MAX_PASSWORD_CHARS,
            "description": "At least one lowercase letter, one uppercase letter and one digit",
        }
    ),
]


class RegisterIn(BaseModel):
    """A new account."""

    username: Username = Field(examples=["ada"])
    email: Email = Field(examples=["ada@example.com"])
    password: NewPassword = Field(repr=False)
    full_name: str | None = Field(default=None, max_length=100)


class LoginIn(BaseModel):
    """Credentials."""

    username_or_email: str = Field(min_length=1, max_length=320, examples=["ada"])
    password: str = Field(min_length=1, max_length=1024, repr=False)


class GoogleIn(BaseModel):
    """An ID token that the app got from Google."""

    token: str = Field(min_length=1, max_length=8192, repr=False)


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
    unlock: bool = Field(default=False, description="Forget wrong passwords and lift the lock")


class MessageOut(BaseModel):
    """A sentence for people."""

    message: str


class JsonWebKey(BaseModel):
    """A public Ed25519 key (RFC 8037)."""

    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    use: Literal["sig"] = "sig"
    alg: Literal["EdDSA"] = "EdDSA"
    kid: str
    x: str


class JwksOut(BaseModel):
    """The keys that tokens may be signed with right now (RFC 7517)."""

    keys: list[JsonWebKey]
