"""What the use cases need from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from libs.common.contracts.events import Event
from services.auth.domain import Session, User


class Users(Protocol):
    """The accounts. Every method may raise the database's unavailability errors."""

    async def insert(self, user: User, events: Sequence[Event]) -> None:
        """Store a new account. Raises EmailTakenError, UsernameTakenError."""
        ...

    async def get(self, user_id: str) -> User | None:
        """By id."""
        ...

    async def by_name(self, username: str) -> User | None:
        """By user name, in any case."""
        ...

    async def by_email(self, email: str) -> User | None:
        """By address, in any case."""
        ...

    async def by_google_subject(self, subject: str) -> User | None:
        """By Google's id of the account."""
        ...

    async def save(self, user: User, events: Sequence[Event]) -> bool:
        """Store `user` if the stored version is the one before; False when somebody else was faster."""
        ...

    async def page(self, query: str, after: str | None, limit: int) -> list[User]:
        """Accounts whose name or address contains `query`, by id, those after the id `after`."""
        ...

    async def announce(self, user_id: str) -> None:
        """Bring the account's events to the stream now, as far as that takes no more than a second."""
        ...


class Sessions(Protocol):
    """The sign-ins. Every method may raise the database's unavailability errors."""

    async def insert(self, session: Session) -> None:
        """Store a new one."""
        ...

    async def discard(self, session_id: str) -> None:
        """Remove one whose tokens nobody has got."""
        ...

    async def by_family(self, family_hash: str) -> Session | None:
        """The session a refresh token belongs to."""
        ...

    async def live_ids(self, user: User, now: datetime) -> list[str]:
        """Ids of the user's sessions that can still be used."""
        ...

    async def rotate(self, session: Session, secret_hash: str, now: datetime, expires_at: datetime) -> bool:
        """Make `secret_hash` the current one if it still is `session.secret_hash` and the session is alive."""
        ...

    async def end(self, session_id: str, now: datetime, events: Sequence[Event]) -> bool:
        """Mark it revoked, with its events, in one write; False when it was before or is gone."""
        ...

    async def announce(self, session_id: str) -> None:
        """Bring the session's events to the stream now, as far as that takes no more than a second."""
        ...


class DeadSessions(Protocol):
    """Where sessions are listed whose access tokens are void before they expire."""

    async def store(self, session_ids: Sequence[str]) -> None:
        """List them, here and for the processes that start later."""
        ...


class PasswordHasher(Protocol):
    """A slow hash that no password is too long for. Raises UnavailableError when too many are waiting."""

    async def hash(self, password: str) -> str:
        """A salted hash."""
        ...

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Whether they belong together; without a hash False, after the same time."""
        ...


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed token; `expires_in_s` in seconds from now."""

    text: str
    expires_in_s: int


class AccessTokens(Protocol):
    """Signs access tokens."""

    async def issue(self, user: User, session_id: str, now: datetime) -> AccessToken:
        """For one session. Raises UnavailableError while there is no key."""
        ...


@dataclass(frozen=True, slots=True)
class GoogleIdentity:
    """What Google says of who signed in."""

    subject: str
    email: str
    email_verified: bool
    name: str | None
    picture: str | None


class GoogleIdentities(Protocol):
    """Reads Google ID tokens."""

    async def identify(self, token: str) -> GoogleIdentity:
        """Raises InvalidGoogleTokenError; UnavailableError while Google's keys cannot be loaded."""
        ...
