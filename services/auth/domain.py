"""Users, sessions and refresh tokens: what is allowed, and what happens. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self

from libs.common.contracts.events import EventData
from libs.common.contracts.identity import Plan
from libs.common.contracts.users import UserLocked, UserRegistered
from libs.common.ids import new_id
from services.auth.errors import AccountInactiveError, AccountLockedError, InvalidRefreshTokenError

MIN_PASSWORD_CHARS = 8
MAX_PASSWORD_CHARS = 100
_USERNAME = re.compile(r"[A-Za-z0-9_-]{3,30}")
_SECRET_BYTES = 32


def check_username(username: str) -> str:
    """The name itself. Raises ValueError."""
    if not _USERNAME.fullmatch(username):
        raise ValueError("Username must be 3-30 characters: letters, digits, hyphens and underscores")
    return username


def check_password(password: str) -> str:
    """The password itself. Raises ValueError with the first rule it breaks (DESIGN section 8)."""
    if len(password) < MIN_PASSWORD_CHARS:
        raise ValueError(f"Password must be at least {MIN_PASSWORD_CHARS} characters long")
    if len(password) > MAX_PASSWORD_CHARS:
        raise ValueError(f"Password must be at most {MAX_PASSWORD_CHARS} characters long")
    if not any(char.islower() for char in password):
        raise ValueError("Password must contain at least one lowercase letter")
    if not any(char.isupper() for char in password):
        raise ValueError("Password must contain at least one uppercase letter")
    if not any(char.isdigit() for char in password):
        raise ValueError("Password must contain at least one digit")
    return password


def username_from(email: str) -> str:
    """A valid user name made from an address, for people who come from Google."""
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", email.partition("@")[0]).strip("-")[:20]
    return base if len(base) >= 3 else f"user-{base}".strip("-")


@dataclass(frozen=True, slots=True)
class LockoutPolicy:
    """After `max_failures` wrong passwords in a row nobody gets in for `duration`."""

    max_failures: int
    duration: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An account. `version` rises with every write, and every write is conditional on the one before.

    `session_epoch` is the generation of sessions that may be used: raising it ends all earlier ones in one write.
    """

    id: str
    username: str
    email: str
    full_name: str | None
    plan: Plan
    is_verified: bool
    created_at: datetime
    password_hash: str | None = None
    google_subject: str | None = None
    avatar_url: str | None = None
    is_active: bool = True
    last_login: datetime | None = None
    failed_logins: int = 0
    locked_until: datetime | None = None
    session_epoch: int = 0
    version: int = 1

    def __repr__(self) -> str:
        return f"User({self.id}, version={self.version})"

    def changed(self, **fields: Any) -> User:
        """The next version."""
        return replace(self, version=self.version + 1, **fields)

    @property
    def state(self) -> dict[str, Any]:
        """What other services learn of a user: no address, no hash."""
        return {
            "user_id": self.id,
            "username": self.username,
            "plan": self.plan,
            "is_active": self.is_active,
            "is_verified": self.is_verified,
            "version": self.version,
        }

    def registered(self) -> list[EventData]:
        """The events of a new account."""
        return [UserRegistered(**self.state)]

    def refuse_if_locked(self, now: datetime) -> None:
        """Raises AccountLockedError."""
        if self.locked_until is not None and self.locked_until > now:
            raise AccountLockedError(self.locked_until - now)

    def after_failed_login(self, now: datetime, policy: LockoutPolicy) -> tuple[User, list[EventData]]:
        """Counts a wrong password. Raises AccountLockedError when the lock fell before this guess was counted."""
        self.refuse_if_locked(now)
        failures = self.failed_logins + 1
        if failures < policy.max_failures:
            return self.changed(failed_logins=failures, locked_until=None), []
        until = now + policy.duration
        locked = self.changed(failed_logins=0, locked_until=until)
        return locked, [UserLocked(user_id=self.id, locked_until=until)]

    def logged_in(self, now: datetime) -> User:
        """After a right password. Raises AccountLockedError, AccountInactiveError."""
        self.refuse_if_locked(now)
        if not self.is_active:
            raise AccountInactiveError
        return self.changed(last_login=now, failed_logins=0, locked_until=None)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What a client keeps to get new access tokens: 256 bits that name the session, 256 that change with every use.

    Only hashes are stored. Because the first half stays, an old token is told from a made-up one however old it is, and
    nobody who merely knows a session's id can end it.
    """

    family: bytes
    secret: bytes

    @classmethod
    def new(cls) -> Self:
        """For a new session."""
        return cls(secrets.token_bytes(_SECRET_BYTES), secrets.token_bytes(_SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidRefreshTokenError."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidRefreshTokenError from error
        if len(raw) != 2 * _SECRET_BYTES:
            raise InvalidRefreshTokenError
        return cls(raw[:_SECRET_BYTES], raw[_SECRET_BYTES:])

    def successor(self) -> RefreshToken:
        """The same session's next token."""
        return RefreshToken(self.family, secrets.token_bytes(_SECRET_BYTES))

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(self.family + self.secret).rstrip(b"=").decode()

    def __repr__(self) -> str:
        return "RefreshToken(…)"

    @property
    def family_hash(self) -> str:
        """What the session is found by."""
        return hashlib.sha256(self.family).hexdigest()

    @property
    def secret_hash(self) -> str:
        """What must be the session's current one."""
        return hashlib.sha256(self.secret).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One sign-in, and the family of refresh tokens that came of it."""

    id: str
    user_id: str
    epoch: int
    family_hash: str
    secret_hash: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None

    @classmethod
    def begin(cls, user: User, token: RefreshToken, now: datetime, life: timedelta) -> Self:
        """A session that `token` keeps alive; unused, it ends after `life`."""
        return cls(
            id=new_id(),
            user_id=user.id,
            epoch=user.session_epoch,
            family_hash=token.family_hash,
            secret_hash=token.secret_hash,
            created_at=now,
            last_used_at=now,
            expires_at=now + life,
        )

    def is_usable_by(self, user: User, now: datetime) -> bool:
        """Whether its tokens may still be exchanged."""
        alive = self.revoked_at is None and self.expires_at > now
        return alive and user.is_active and user.session_epoch == self.epoch
