"""Fakes of the auth service's ports. Every call lets other tasks run first, so that races show."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from libs.common.contracts.events import Event, EventData
from services.auth.domain import LockoutPolicy, Session, User
from services.auth.errors import EmailTakenError, InvalidGoogleTokenError, UsernameTakenError
from services.auth.ports import AccessToken, GoogleIdentities, GoogleIdentity
from services.auth.service.accounts import AccountService
from services.auth.service.sessions import SessionService
from services.auth.service.sign_in import SignInService


class ManualClock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


class MemoryUsers:
    """Users in a dict, with the same conditions as the real ones."""

    def __init__(self) -> None:
        self.stored: dict[str, User] = {}
        self.events: list[Event] = []
        self.announced: list[str] = []

    async def insert(self, user: User, events: Sequence[Event]) -> None:
        await asyncio.sleep(0)
        if any(user.email.lower() == other.email.lower() for other in self.stored.values()):
            raise EmailTakenError
        if any(user.username.lower() == other.username.lower() for other in self.stored.values()):
            raise UsernameTakenError
        self.stored[user.id] = user
        self.events += events

    async def get(self, user_id: str) -> User | None:
        await asyncio.sleep(0)
        return self.stored.get(user_id)

    async def by_name(self, username: str) -> User | None:
        await asyncio.sleep(0)
        return next((u for u in self.stored.values() if u.username.lower() == username.lower()), None)

    async def by_email(self, email: str) -> User | None:
        await asyncio.sleep(0)
        return next((u for u in self.stored.values() if u.email.lower() == email.lower()), None)

    async def by_google_subject(self, subject: str) -> User | None:
        await asyncio.sleep(0)
        return next((u for u in self.stored.values() if u.google_subject == subject), None)

    async def save(self, user: User, events: Sequence[Event]) -> bool:
        await asyncio.sleep(0)
        if self.stored[user.id].version != user.version - 1:
            return False
        self.stored[user.id] = user
        self.events += events
        return True

    async def page(self, query: str, after: str | None, limit: int) -> list[User]:
        found = [u for u in self.stored.values() if query in u.username.lower() or query in u.email.lower()]
        return [u for u in sorted(found, key=lambda u: u.id) if after is None or u.id > after][:limit]

    async def announce(self, user_id: str) -> None:
        self.announced.append(user_id)


class MemorySessions:
    """Sessions in a dict, with the same conditions as the real ones."""

    def __init__(self) -> None:
        self.stored: dict[str, Session] = {}
        self.events: list[Event] = []
        self.announced: list[str] = []

    async def insert(self, session: Session) -> None:
        await asyncio.sleep(0)
        self.stored[session.id] = session

    async def discard(self, session_id: str) -> None:
        self.stored.pop(session_id, None)

    async def by_family(self, family_hash: str) -> Session | None:
        await asyncio.sleep(0)
        return next((s for s in self.stored.values() if s.family_hash == family_hash), None)

    async def live_ids(self, user: User, now: datetime) -> list[str]:
        await asyncio.sleep(0)
        mine = [s for s in self.stored.values() if s.user_id == user.id and s.epoch == user.session_epoch]
        return [s.id for s in mine if s.revoked_at is None and s.expires_at > now]

    async def rotate(self, session: Session, secret_hash: str, now: datetime, expires_at: datetime) -> bool:
        await asyncio.sleep(0)
        current = self.stored[session.id]
        if current.secret_hash != session.secret_hash or current.revoked_at is not None:
            return False
        self.stored[session.id] = replace(current, secret_hash=secret_hash, last_used_at=now, expires_at=expires_at)
        return True

    async def end(self, session_id: str, now: datetime, events: Sequence[Event]) -> bool:
        await asyncio.sleep(0)
        current = self.stored.get(session_id)
        if current is None or current.revoked_at is not None:
            return False
        self.stored[session_id] = replace(current, revoked_at=now)
        self.events += events
        return True

    async def announce(self, session_id: str) -> None:
        self.announced.append(session_id)


class DeadSessionList:
    """Remembers what was stored."""

    def __init__(self) -> None:
        self.ids: set[str] = set()

    async def store(self, session_ids: Sequence[str]) -> None:
        self.ids.update(session_ids)


class PlainHasher:
    """No hash at all; counts how often somebody waited for one."""

    def __init__(self) -> None:
        self.checks = 0

    async def hash(self, password: str) -> str:
        await asyncio.sleep(0)
        return f"plain:{password}"

    async def verify(self, password: str, hashed: str | None) -> bool:
        self.checks += 1
        await asyncio.sleep(0)
        return hashed == f"plain:{password}"


class PlainTokens:
    """Tokens that can be read."""

    async def issue(self, user: User, session_id: str, now: datetime) -> AccessToken:
        return AccessToken(f"{user.id}/{session_id}/{user.plan}", 1800)


class KnownGoogle:
    """Accepts the tokens it was told."""

    def __init__(self, **identities: GoogleIdentity) -> None:
        self.identities = identities

    async def identify(self, token: str) -> GoogleIdentity:
        if token not in self.identities:
            raise InvalidGoogleTokenError
        return self.identities[token]


@dataclass
class AuthOnFakes:
    """All use cases on fakes."""

    google: GoogleIdentities | None = None
    clock: ManualClock = field(default_factory=ManualClock)
    users: MemoryUsers = field(default_factory=MemoryUsers)
    stored_sessions: MemorySessions = field(default_factory=MemorySessions)
    dead: DeadSessionList = field(default_factory=DeadSessionList)
    hasher: PlainHasher = field(default_factory=PlainHasher)

    def __post_init__(self) -> None:
        self.sessions = SessionService(
            self.users, self.stored_sessions, PlainTokens(), self.dead, self.clock, life=timedelta(days=30)
        )
        self.sign_in = SignInService(
            self.users,
            self.sessions,
            self.hasher,
            self.google,
            self.clock,
            lockout=LockoutPolicy(5, timedelta(minutes=30)),
        )
        self.accounts = AccountService(self.users, self.sessions, self.hasher, self.clock)

    def payloads(self, kind: type[EventData]) -> list[EventData]:
        """The data of all events of one kind."""
        events = [*self.users.events, *self.stored_sessions.events]
        return [data for event in events if isinstance(data := event.payload(), kind)]
