"""What the use cases need from outside."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from libs.common.contracts.events import Event
from libs.common.contracts.users import MailPurpose
from services.auth.domain.api_keys import StoredKey
from services.auth.domain.audit import AuditEntry, AuditQuery
from services.auth.domain.links import Link
from services.auth.domain.sessions import Session
from services.auth.domain.users import LockoutPolicy, User


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

    async def get(self, session_id: str) -> Session | None:
        """By id."""
        ...

    async def live_ids(self, user: User, now: datetime) -> list[str]:
        """Ids of the user's sessions that can still be used."""
        ...

    async def page(self, user: User, now: datetime, before: str | None, limit: int) -> list[Session]:
        """The user's sessions that can still be used, the newest first, those before the id `before`."""
        ...

    async def rotate(self, session: Session, rotation: Rotation) -> bool:
        """Take over `rotation` if the secret still is `session.secret_hash` and the session is alive."""
        ...

    async def move(self, session_id: str, epoch: int) -> None:
        """Keep a live session when its user's epoch rises."""
        ...

    async def seen(self, session_id: str, at: datetime, address: str | None) -> None:
        """It was used, from there; keeps the latest."""
        ...

    async def remove_all(self, user_id: str) -> bool:
        """Forget all of a user's; False while some have events to publish first."""
        ...

    async def end(self, session_id: str, now: datetime, events: Sequence[Event]) -> bool:
        """Mark it revoked, with its events, in one write; False when it was before or is gone."""
        ...

    async def announce(self, session_id: str) -> None:
        """Bring the session's events to the stream now, as far as that takes no more than a second."""
        ...


@dataclass(frozen=True, slots=True)
class Rotation:
    """A refresh: the next secret, when, from where, and how long the session now lasts."""

    secret_hash: str
    at: datetime
    address: str | None
    expires_at: datetime


class Strangers(Protocol):
    """Wrong passwords for names that nobody has: counted and locked like those of accounts, so that no answer tells."""

    async def locked_until(self, name: str) -> datetime | None:
        """Until when sign-ins by this name are refused; maybe past."""
        ...

    async def count_failure(self, name: str, now: datetime, policy: LockoutPolicy) -> None:
        """One more, and the lock when it is one too many."""
        ...


class ApiKeys(Protocol):
    """API keys that are not revoked. Every method may raise the database's unavailability errors."""

    async def insert(self, key: StoredKey, events: Sequence[Event]) -> None:
        """Store a new one."""
        ...

    async def of(self, user_id: str) -> list[StoredKey]:
        """All of a user's, the newest first."""
        ...

    async def revoke(self, key: StoredKey, now: datetime, events: Sequence[Event]) -> bool:
        """Make it void, with its events, in one write; False when it was before."""
        ...

    async def seen(self, key_id: str, at: datetime, address: str | None) -> None:
        """It was used, from there; keeps the latest."""
        ...

    async def announce(self, key_id: str) -> None:
        """Bring the key's events to the stream now, as far as that takes no more than a second."""
        ...

    async def remove_all(self, user_id: str) -> bool:
        """Forget all of a user's; False while some have events to publish first."""
        ...


class Links(Protocol):
    """Links that were mailed, by the hash of their token. Methods may raise the database's unavailability errors."""

    async def keep(self, link: Link) -> None:
        """Store it, unless it is there: then it may have been used."""
        ...

    async def use(self, link_hash: str, purpose: MailPurpose, now: datetime) -> Link | None:
        """Take it out of use; None when there is none that is good for this."""
        ...

    async def remove_all(self, user_id: str) -> None:
        """Forget all of a user's."""
        ...


class AuditTrail(Protocol):
    """Who did what. Every method may raise the database's unavailability errors."""

    async def keep(self, entry: AuditEntry) -> None:
        """Store it, once."""
        ...

    async def page(self, query: AuditQuery, before: str | None, limit: int) -> list[AuditEntry]:
        """The newest first, those before the id `before`."""
        ...

    def all(self, query: AuditQuery) -> AsyncGenerator[AuditEntry]:
        """The oldest first; memory stays flat."""
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

    def close(self) -> None:
        """Stop what runs for it."""
        ...


@dataclass(frozen=True, slots=True)
class Mail:
    """One to one person; `text` has the `link` in it."""

    to: str
    subject: str
    text: str = field(repr=False)
    link: str = field(repr=False)


class MailRefusedError(Exception):
    """This address takes no mail; trying again would not help."""


class MailUnavailableError(Exception):
    """The mail could not be handed over now."""


class Mailer(Protocol):
    """Hands mails over."""

    async def send(self, mail: Mail) -> None:
        """Returns when somebody else is responsible for it. Raises MailRefusedError, MailUnavailableError."""
        ...


class MailTexts(Protocol):
    """Writes a mail."""

    def __call__(self, purpose: MailPurpose, to: str, name: str, link: str, life: timedelta) -> Mail:
        """To the person `name` at the address `to`; the link is good for `life`."""
        ...
