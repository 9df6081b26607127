"""Fakes of the auth service's ports. Every call lets other tasks run first, so that races show."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from libs.common.contracts.events import EventData
from libs.common.contracts.users import MailPurpose
from services.auth.domain.sessions import Device
from services.auth.domain.users import LockoutPolicy, User
from services.auth.errors import InvalidGoogleTokenError
from services.auth.mail.texts import mail_with_link
from services.auth.ports import AccessToken, GoogleIdentities, GoogleIdentity, Mail
from services.auth.service.accounts import AccountService
from services.auth.service.api_keys import ApiKeyService
from services.auth.service.credentials import Credentials
from services.auth.service.deletion import DeletionService
from services.auth.service.mails import LinkRules, MailService
from services.auth.service.recovery import RecoveryService
from services.auth.service.sessions import SessionService
from services.auth.service.sign_in import SignInService
from tests.fakes.auth_stores import MemoryApiKeys, MemoryLinks, MemorySessions, MemoryStrangers, MemoryUsers

PHONE = Device("Ada's phone", "192.0.2.7")


class ManualClock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


class SentMails:
    """Keeps mails; `failing` is raised instead."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.failing: Exception | None = None
        self.asked = 0

    async def send(self, mail: Mail) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.failing is not None:
            raise self.failing
        self.mails.append(mail)


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

    def close(self) -> None:
        """Nothing runs."""


@dataclass
class AuthOnFakes:
    """All use cases on fakes."""

    google: GoogleIdentities | None = None
    clock: ManualClock = field(default_factory=ManualClock)
    users: MemoryUsers = field(default_factory=MemoryUsers)
    stored_sessions: MemorySessions = field(default_factory=MemorySessions)
    dead: DeadSessionList = field(default_factory=DeadSessionList)
    hasher: PlainHasher = field(default_factory=PlainHasher)

    keys: MemoryApiKeys = field(default_factory=MemoryApiKeys)
    links: MemoryLinks = field(default_factory=MemoryLinks)
    strangers: MemoryStrangers = field(default_factory=MemoryStrangers)
    sent: SentMails = field(default_factory=SentMails)
    sends_mails: bool = True

    def __post_init__(self) -> None:
        self.sessions = SessionService(
            self.users,
            self.stored_sessions,
            self.keys,
            tokens=PlainTokens(),
            dead=self.dead,
            clock=self.clock,
            life=timedelta(days=30),
        )
        lockout = LockoutPolicy(5, timedelta(minutes=30))
        credentials = Credentials(self.users, self.strangers, self.hasher, self.clock, lockout=lockout)
        self.sign_in = SignInService(self.users, self.sessions, credentials, self.google, self.clock)
        self.accounts = AccountService(self.users, self.sessions, self.hasher, self.clock)
        self.api_keys = ApiKeyService(self.users, self.keys, self.dead, self.clock)
        self.recovery = RecoveryService(
            self.users,
            self.links,
            self.sessions,
            self.api_keys,
            credentials=credentials,
            hasher=self.hasher,
            clock=self.clock,
            sends_mails=self.sends_mails,
        )
        self.deletion = DeletionService(
            self.users,
            self.stored_sessions,
            self.keys,
            self.links,
            sessions=self.sessions,
            credentials=credentials,
            clock=self.clock,
        )
        lives: dict[MailPurpose, timedelta] = {
            "verify_email": timedelta(hours=24),
            "reset_password": timedelta(hours=1),
        }
        rules = LinkRules(b"key", "http://gateway", lives)
        self.mails = MailService(self.users, self.links, self.sent, texts=mail_with_link, clock=self.clock, rules=rules)

    def payloads(self, kind: type[EventData]) -> list[EventData]:
        """The data of all events of one kind."""
        events = [*self.users.events, *self.stored_sessions.events, *self.keys.events]
        return [data for event in events if isinstance(data := event.payload(), kind)]
