"""API keys: what they look like, and how every service checks them.

`dpk_<key id>_<secret>`. The id is a UUIDv7, so the key itself tells when it was made: only a key younger than
ten seconds can be one that the service has yet to hear of, and is waited for. The secret has 256 random bits, so one
round of a fast hash is enough, and the hash may travel in events.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

from libs.common.clock import utc_now
from libs.common.contracts.identity import Plan, Scope
from libs.common.errors import UnauthenticatedError
from libs.common.ids import new_id
from libs.common.security.principal import NEVER, Principal

PREFIX = "dpk_"
_FORM = re.compile(r"dpk_([0-9a-f]{32})_([A-Za-z0-9_-]{43})")
_SECRET_BYTES = 32
_NEWS_WITHIN_S = 10.0
_GRACE_S = 1.0
_LOOK_EVERY_S = 0.05
# How late a change of the owner (plan, verification) may take effect; revocations are heard at once.
_FRESH_FOR_S = 1.0
_CACHED_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner holds it."""

    id: str
    secret: str

    @classmethod
    def new(cls) -> Self:
        """One that nobody can guess."""
        return cls(new_id(), secrets.token_urlsafe(_SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None when the text is no key."""
        found = _FORM.fullmatch(text)
        return cls(found[1], found[2]) if found is not None else None

    def __str__(self) -> str:
        return f"{PREFIX}{self.id}_{self.secret}"

    def __repr__(self) -> str:
        return f"ApiKey({self.id}, …)"

    @property
    def secret_hash(self) -> str:
        """SHA-256 in hexadecimal: what is stored."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    @property
    def age_s(self) -> float:
        """Seconds since it was made, by the first 48 bits of its id (RFC 9562, 5.7)."""
        return time.time() - int(self.id[:12], 16) / 1000


def key_session_id(key_id: str, epoch: int) -> str:
    """What revocations name when a user's sign-ins end: the key in this epoch. In the next one it works again."""
    return f"{key_id}-{epoch}"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that is not revoked, and its owner."""

    id: str
    secret_hash: str
    scopes: frozenset[Scope]
    expires_at: datetime | None
    user_id: str
    plan: Plan
    is_active: bool
    is_verified: bool
    session_epoch: int


class KeyDirectory(Protocol):
    """Finds keys: auth in its own collection, the others in what they heard from it."""

    async def find(self, key_id: str) -> KnownKey | None:
        """None for one that is unknown or revoked, or whose owner is. Raises UnavailableError."""
        ...


class ApiKeyVerifier:
    """Checks keys and remembers the good ones for a moment."""

    def __init__(self, directory: KeyDirectory) -> None:
        self._directory = directory
        self._seen: OrderedDict[str, tuple[Principal, float]] = OrderedDict()

    async def verify(self, text: str) -> Principal:
        """The caller. Raises UnauthenticatedError, UnavailableError."""
        found = self._seen.get(text)
        if found is None or found[1] <= time.monotonic():
            found = (await self._check(text), time.monotonic() + _FRESH_FOR_S)
            self._remember(text, found)
        return found[0]

    def forget(self, text: str) -> None:
        """Look again the next time."""
        self._seen.pop(text, None)

    async def _check(self, text: str) -> Principal:
        key = ApiKey.parse(text)
        known = await self._find(key) if key is not None else None
        if key is None or known is None or not hmac.compare_digest(known.secret_hash, key.secret_hash):
            raise UnauthenticatedError("The API key is unknown or was revoked")
        if not known.is_active:
            raise UnauthenticatedError("The account of this API key is deactivated")
        if known.expires_at is not None and known.expires_at <= utc_now():
            raise UnauthenticatedError("The API key has expired")
        return Principal(
            user_id=known.user_id,
            session_id=key_session_id(known.id, known.session_epoch),
            plan=known.plan,
            is_verified=known.is_verified,
            expires_at=known.expires_at or NEVER,
            key_id=known.id,
            scopes=known.scopes,
        )

    async def _find(self, key: ApiKey) -> KnownKey | None:
        known = await self._directory.find(key.id)
        if known is not None or not 0 <= key.age_s < _NEWS_WITHIN_S:
            return known
        deadline = time.monotonic() + _GRACE_S
        while known is None and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_EVERY_S)
            known = await self._directory.find(key.id)
        return known

    def _remember(self, text: str, found: tuple[Principal, float]) -> None:
        self._seen[text] = found
        self._seen.move_to_end(text)
        if len(self._seen) > _CACHED_KEYS:
            self._seen.popitem(last=False)
