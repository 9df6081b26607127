"""Settings of the auth service, on top of those that all services have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from libs.common.settings import CommonSettings, Stage

_MIN_PRODUCTION_HASH_COST = 10
_MOST_HASH_WORKERS = 8


def _spare_cores() -> int:
    """A core is left to the event loop: with all of them, a storm of logins makes other calls ten times slower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores - 1, 1), _MOST_HASH_WORKERS)


class AuthSettings(CommonSettings):
    """Read from the environment and `.env`."""

    google_client_id: str | None = Field(
        default=None,
        description="Accepted audience of Google ID tokens, several with commas between; unset turns it off",
    )
    google_client_secret: SecretStr | None = Field(
        default=None, description="Not needed to check ID tokens; accepted because operators have it set"
    )
    google_certs_url: str = Field(
        default="https://www.googleapis.com/oauth2/v1/certs",
        description="Where the certificates are that Google ID tokens are checked with",
    )
    admin_email: str | None = Field(default=None, description="Makes the first administrator at start-up")
    admin_password: SecretStr | None = Field(default=None, description="The first administrator's password")
    require_email_verification: bool = Field(
        default=False, description="Only users with a verified email address may create environments"
    )

    public_url: str = Field(
        default="http://127.0.0.1:8000", description="Where users reach the gateway; what links in mails begin with"
    )
    smtp_url: SecretStr | None = Field(
        default=None, description="smtp://user:password@host:587 (STARTTLS) or smtps://…; sends the mails"
    )
    mail_from: str = Field(default="DevPocket <no-reply@localhost>", description="The sender of mails")
    mail_folder: Path | None = Field(
        default=None, description="Without SMTP_URL mails are written into this folder; without either none are sent"
    )
    verify_link_hours: int = Field(default=24, ge=1, description="How long the link to verify an address is good for")
    reset_link_minutes: int = Field(default=60, ge=5, description="How long the link to a new password is good for")
    audit_retention_days: int = Field(default=365, ge=1, description="How long the audit trail is kept, in days")

    lockout_failures: int = Field(default=5, ge=1, description="Wrong passwords in a row until the account is locked")
    lockout_minutes: int = Field(default=30, ge=1, description="How long it is locked, in minutes")
    refresh_token_expire_days: int = Field(
        default=30, ge=1, le=365, description="How long a session lasts without being used, in days"
    )
    password_hash_cost: int = Field(
        default=12, ge=4, le=16, description="log2 of bcrypt's rounds; 12 takes 0.2 s of a core"
    )
    password_hash_workers: int = Field(
        default_factory=_spare_cores,
        ge=1,
        le=64,
        description="Passwords hashed at the same time; by default one less than there are cores, at most 8",
    )
    signing_key_days: int = Field(default=30, ge=1, description="How long a key signs before the next one, in days")

    @field_validator(
        "google_client_id",
        "google_client_secret",
        "admin_email",
        "admin_password",
        "smtp_url",
        "mail_folder",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        """What compose files and left-over lines say; an empty path would be the working directory."""
        return None if value == "" else value

    @property
    def google_client_ids(self) -> list[str]:
        """The accepted audiences; empty when Google sign-in is off."""
        return [item.strip() for item in (self.google_client_id or "").split(",") if item.strip()]

    @model_validator(mode="after")
    def _refuse_weak_hashes(self) -> Self:
        if self.environment is Stage.PRODUCTION and self.password_hash_cost < _MIN_PRODUCTION_HASH_COST:
            raise ValueError(f"PASSWORD_HASH_COST must be at least {_MIN_PRODUCTION_HASH_COST} in production")
        return self
