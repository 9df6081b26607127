"""Sign-ins and the refresh tokens that keep them alive. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from libs.common.ids import new_id
from services.auth.domain.users import User
from services.auth.errors import InvalidRefreshTokenError

MAX_DEVICE_CHARS = 100
_SECRET_BYTES = 32


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


@dataclass(frozen=True, slots=True)
class Device:
    """What somebody signs in with: the name it is listed by, and the network address it calls from."""

    name: str
    address: str | None

    @classmethod
    def of(cls, name: str | None, user_agent: str | None, address: str | None) -> Self:
        """The name that the app gives, else what the client calls itself."""
        shown = " ".join((name or user_agent or "").split())
        return cls(shown[:MAX_DEVICE_CHARS] or "Unknown device", address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One sign-in, and the family of refresh tokens that came of it."""

    id: str
    user_id: str
    epoch: int
    family_hash: str
    secret_hash: str
    device: str
    address: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None

    @classmethod
    def begin(cls, user: User, device: Device, token: RefreshToken, now: datetime, life: timedelta) -> Self:
        """A session that `token` keeps alive; unused, it ends after `life`."""
        return cls(
            id=new_id(),
            user_id=user.id,
            epoch=user.session_epoch,
            family_hash=token.family_hash,
            secret_hash=token.secret_hash,
            device=device.name,
            address=device.address,
            created_at=now,
            last_used_at=now,
            expires_at=now + life,
        )

    def is_usable_by(self, user: User, now: datetime) -> bool:
        """Whether its tokens may still be exchanged."""
        alive = self.revoked_at is None and self.expires_at > now
        return alive and user.is_active and user.session_epoch == self.epoch
