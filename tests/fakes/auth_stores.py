"""Auth's collections in dicts, with the same conditions. Every call lets other tasks run first, so that races show."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from libs.common.contracts.events import Event
from libs.common.contracts.users import MailPurpose
from services.auth.domain.api_keys import StoredKey
from services.auth.domain.links import Link
from services.auth.domain.sessions import Session
from services.auth.domain.users import LockoutPolicy, User
from services.auth.errors import EmailTakenError, UsernameTakenError
from services.auth.ports import Rotation


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

    async def get(self, session_id: str) -> Session | None:
        await asyncio.sleep(0)
        return self.stored.get(session_id)

    async def live_ids(self, user: User, now: datetime) -> list[str]:
        await asyncio.sleep(0)
        mine = [s for s in self.stored.values() if s.user_id == user.id and s.epoch == user.session_epoch]
        return [s.id for s in mine if s.revoked_at is None and s.expires_at > now]

    async def page(self, user: User, now: datetime, before: str | None, limit: int) -> list[Session]:
        ids = sorted(await self.live_ids(user, now), reverse=True)
        return [self.stored[found] for found in ids if before is None or found < before][:limit]

    async def rotate(self, session: Session, rotation: Rotation) -> bool:
        await asyncio.sleep(0)
        current = self.stored[session.id]
        if current.secret_hash != session.secret_hash or current.revoked_at is not None:
            return False
        self.stored[session.id] = replace(
            current,
            secret_hash=rotation.secret_hash,
            last_used_at=rotation.at,
            address=rotation.address,
            expires_at=rotation.expires_at,
        )
        return True

    async def move(self, session_id: str, epoch: int) -> None:
        current = self.stored[session_id]
        if current.revoked_at is None and current.epoch < epoch:
            self.stored[session_id] = replace(current, epoch=epoch)

    async def seen(self, session_id: str, at: datetime, address: str | None) -> None:
        current = self.stored.get(session_id)
        if current is not None and current.last_used_at < at:
            self.stored[session_id] = replace(current, last_used_at=at, address=address)

    async def remove_all(self, user_id: str) -> bool:
        self.stored = {key: session for key, session in self.stored.items() if session.user_id != user_id}
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


class MemoryApiKeys:
    """Keys in a dict."""

    def __init__(self) -> None:
        self.stored: dict[str, StoredKey] = {}
        self.events: list[Event] = []
        self.announced: list[str] = []

    async def insert(self, key: StoredKey, events: Sequence[Event]) -> None:
        await asyncio.sleep(0)
        self.stored[key.id] = key
        self.events += events

    async def of(self, user_id: str) -> list[StoredKey]:
        await asyncio.sleep(0)
        return sorted((k for k in self.stored.values() if k.user_id == user_id), key=lambda k: k.id, reverse=True)

    async def revoke(self, key: StoredKey, now: datetime, events: Sequence[Event]) -> bool:
        await asyncio.sleep(0)
        if self.stored.pop(key.id, None) is None:
            return False
        self.events += events
        return True

    async def seen(self, key_id: str, at: datetime, address: str | None) -> None:
        if key_id in self.stored:
            self.stored[key_id] = replace(self.stored[key_id], last_used_at=at, last_address=address)

    async def announce(self, key_id: str) -> None:
        self.announced.append(key_id)

    async def remove_all(self, user_id: str) -> bool:
        self.stored = {name: key for name, key in self.stored.items() if key.user_id != user_id}
        return True


class MemoryLinks:
    """Links in a dict."""

    def __init__(self) -> None:
        self.stored: dict[str, Link] = {}
        self.used: set[str] = set()

    async def keep(self, link: Link) -> None:
        await asyncio.sleep(0)
        self.stored.setdefault(link.hash, link)

    async def use(self, link_hash: str, purpose: MailPurpose, now: datetime) -> Link | None:
        await asyncio.sleep(0)
        link = self.stored.get(link_hash)
        if link is None or link_hash in self.used or link.purpose != purpose or link.expires_at <= now:
            return None
        self.used.add(link_hash)
        return link

    async def remove_all(self, user_id: str) -> None:
        self.stored = {name: link for name, link in self.stored.items() if link.user_id != user_id}


class MemoryStrangers:
    """Counts in a dict."""

    def __init__(self) -> None:
        self.failures: dict[str, int] = {}
        self.locks: dict[str, datetime] = {}

    async def locked_until(self, name: str) -> datetime | None:
        await asyncio.sleep(0)
        return self.locks.get(name.lower())

    async def count_failure(self, name: str, now: datetime, policy: LockoutPolicy) -> None:
        await asyncio.sleep(0)
        count = self.failures.get(name.lower(), 0) + 1
        if count >= policy.max_failures:
            self.locks[name.lower()] = now + policy.duration
            count = 0
        self.failures[name.lower()] = count
