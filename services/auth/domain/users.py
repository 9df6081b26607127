"""Users: what is allowed, and what happens. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from libs.common.contracts.base import EventData
from libs.common.contracts.identity import Plan
from libs.common.contracts.users import (
    MailPurpose,
    UserLocked,
    UserLoginFailed,
    UserMailRequested,
    UserPasswordChanged,
    UserRegistered,
    UserUpdated,
)
from services.auth.errors import AccountInactiveError, AccountLockedError

# Mails of one kind to one person, no closer together.
MAIL_SPACING = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class LockoutPolicy:
    """After `max_failures` wrong passwords in a row nobody gets in for `duration`."""

    max_failures: int
    duration: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An account. `version` rises with every write, and every write is conditional on the one before.

    `session_epoch` is the generation of sessions that may be used: raising it ends all earlier ones in one write.
    `verify_mail_at` and `reset_mail_at` are when a mail of that kind was last asked for. A deleted account is a
    tombstone without personal data; `erased_at` is when the last trace of it was gone everywhere.
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
    password_changed_at: datetime | None = None
    verify_mail_at: datetime | None = None
    reset_mail_at: datetime | None = None
    deleted_at: datetime | None = None
    erased_at: datetime | None = None
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
            "session_epoch": self.session_epoch,
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
        failed = UserLoginFailed(user_id=self.id, failures=failures)
        if failures < policy.max_failures:
            return self.changed(failed_logins=failures, locked_until=None), [failed]
        until = now + policy.duration
        locked = self.changed(failed_logins=0, locked_until=until)
        return locked, [failed, UserLocked(user_id=self.id, locked_until=until)]

    def logged_in(self, now: datetime) -> User:
        """After a right password. Raises AccountLockedError, AccountInactiveError."""
        self.refuse_if_locked(now)
        if not self.is_active:
            raise AccountInactiveError
        return self.changed(last_login=now, failed_logins=0, locked_until=None)

    def verified(self) -> tuple[User, list[EventData]]:
        """The address belongs to who has the account."""
        if self.is_verified:
            return self, []
        verified = self.changed(is_verified=True)
        return verified, [UserUpdated(**verified.state)]

    def with_password(self, password_hash: str, now: datetime, how: Literal["change", "reset"]) -> User:
        """Another password, which ends all sign-ins. Who reset it by mail has proved the address: it is verified."""
        proved: dict[str, Any] = {"is_verified": True, "locked_until": None, "failed_logins": 0}
        return self.changed(
            password_hash=password_hash,
            password_changed_at=now,
            session_epoch=self.session_epoch + 1,
            **(proved if how == "reset" else {}),
        )

    def password_changed(self, how: Literal["change", "reset"]) -> list[EventData]:
        """The events of `with_password`."""
        return [UserPasswordChanged(user_id=self.id, how=how), UserUpdated(**self.state)]

    def asked_for_mail(self, purpose: MailPurpose, now: datetime) -> tuple[User, list[EventData]]:
        """Asks for a mail, unless there is no need for it or the last one was asked for just now."""
        needless = not self.is_active or (purpose == "verify_email" and self.is_verified)
        field = "verify_mail_at" if purpose == "verify_email" else "reset_mail_at"
        last: datetime | None = getattr(self, field)
        if needless or (last is not None and now - last < MAIL_SPACING):
            return self, []
        return self.changed(**{field: now}), [UserMailRequested(user_id=self.id, purpose=purpose)]

    def deleted(self, now: datetime) -> User:
        """A tombstone: nothing personal is left, and its name and address are free for others."""
        placeholder = f"deleted-{self.id}"
        return User(
            id=self.id,
            username=placeholder,
            email=f"{placeholder}@deleted.invalid",
            full_name=None,
            plan=self.plan if self.plan is not Plan.ADMIN else Plan.FREE,
            is_verified=False,
            created_at=self.created_at,
            is_active=False,
            session_epoch=self.session_epoch + 1,
            deleted_at=now,
            version=self.version + 1,
        )
