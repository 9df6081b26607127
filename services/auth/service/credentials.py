"""Checking passwords: at sign-in, and where somebody who is signed in has to confirm something."""

from __future__ import annotations

from libs.common.clock import Clock
from libs.common.contracts.base import EventData
from services.auth.domain.users import LockoutPolicy, User
from services.auth.errors import AccountLockedError, IncorrectCredentialsError, IncorrectPasswordError
from services.auth.ports import PasswordHasher, Strangers, Users
from services.auth.service.changes import change_user


class Credentials:
    """Counts what is wrong, wherever it was tried: all guesses at one account share its lock."""

    def __init__(
        self,
        users: Users,
        strangers: Strangers,
        hasher: PasswordHasher,
        clock: Clock,
        *,
        lockout: LockoutPolicy,
    ) -> None:
        self._users = users
        self._strangers = strangers
        self._hasher = hasher
        self._clock = clock
        self._lockout = lockout

    async def user(self, name_or_email: str, password: str) -> User:
        """Who has this name and password. Raises IncorrectCredentialsError, AccountLockedError.

        Guesses may be checked side by side, but each is counted by one conditional write that also sees the lock, so
        their answers are those of some order one after another: never more than the allowed number are "incorrect",
        and none gets in after the lock. Names that nobody has are treated alike, so that no answer tells which exist.
        """
        name = name_or_email.strip()
        user = await (self._users.by_email(name) if "@" in name else self._users.by_name(name))
        if user is None:
            await self._refuse_stranger(name, password)
            raise IncorrectCredentialsError
        if not await self._matches(user, password):
            raise IncorrectCredentialsError
        return user

    async def confirm(self, user: User, password: str) -> None:
        """Raises IncorrectPasswordError, AccountLockedError."""
        if not await self._matches(user, password):
            raise IncorrectPasswordError

    async def _matches(self, user: User, password: str) -> bool:
        user.refuse_if_locked(self._clock())
        if await self._hasher.verify(password, user.password_hash):
            return True
        await change_user(self._users, user, self._count_failure)
        return False

    async def _count_failure(self, user: User) -> tuple[User, list[EventData]]:
        return user.after_failed_login(self._clock(), self._lockout)

    async def _refuse_stranger(self, name: str, password: str) -> None:
        now = self._clock()
        locked_until = await self._strangers.locked_until(name)
        if locked_until is not None and locked_until > now:
            raise AccountLockedError(locked_until - now)
        await self._hasher.verify(password, None)
        await self._strangers.count_failure(name, self._clock(), self._lockout)
