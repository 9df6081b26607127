"""Deleting accounts: the account at once, everything else by events, and a last word when it is done."""

from __future__ import annotations

from datetime import timedelta

from libs.common.clock import Clock
from libs.common.contracts.base import EventData
from libs.common.contracts.users import UserDeleted, UserErased
from libs.common.errors import TemporaryError, UnauthenticatedError
from services.auth.domain.users import User
from services.auth.errors import IncorrectPasswordError, OwnAccountError, SignInAgainError, UserNotFoundError
from services.auth.ports import ApiKeys, Links, Sessions, Users
from services.auth.service.changes import change_user
from services.auth.service.credentials import Credentials
from services.auth.service.sessions import SessionService

# An account without a password (Google) confirms by having signed in no longer ago.
_JUST_NOW = timedelta(minutes=10)
_AGAIN_AFTER_S = 1.0


class DeletionService:
    """The account becomes a tombstone that knows nothing of the person; each service removes what it has."""

    def __init__(
        self,
        users: Users,
        stored_sessions: Sessions,
        keys: ApiKeys,
        links: Links,
        *,
        sessions: SessionService,
        credentials: Credentials,
        clock: Clock,
    ) -> None:
        self._users = users
        self._stored_sessions = stored_sessions
        self._keys = keys
        self._links = links
        self._sessions = sessions
        self._credentials = credentials
        self._clock = clock

    async def delete_own(self, user_id: str, session_id: str, password: str | None) -> None:
        """Raises IncorrectPasswordError, SignInAgainError, AccountLockedError."""
        user = await self._users.get(user_id)
        if user is None or not user.is_active:
            raise UnauthenticatedError
        if user.password_hash is not None:
            if password is None:
                raise IncorrectPasswordError
            await self._credentials.confirm(user, password)
        else:
            session = await self._stored_sessions.get(session_id)
            if session is None or session.created_at < self._clock() - _JUST_NOW:
                raise SignInAgainError
        await self._delete(user)

    async def delete(self, user_id: str, *, by: str | None) -> None:
        """By an administrator. Raises UserNotFoundError, OwnAccountError."""
        user = await self._users.get(user_id)
        if user is None or user.deleted_at is not None:
            raise UserNotFoundError
        if user.id == by:
            raise OwnAccountError
        await self._delete(user)

    async def _delete(self, user: User) -> None:
        def change(current: User) -> tuple[User, list[EventData]]:
            if current.deleted_at is not None:
                return current, []
            deleted = current.deleted(self._clock())
            return deleted, [UserDeleted(**deleted.state)]

        await self._sessions.change_and_end(user, change, "deleted")

    async def forget(self, user_id: str) -> None:
        """Remove what is here besides the account. Raises TemporaryError while events wait to be published."""
        await self._links.remove_all(user_id)
        sessions_gone = await self._stored_sessions.remove_all(user_id)
        if not (await self._keys.remove_all(user_id) and sessions_gone):
            raise TemporaryError("a session or key has events to publish first", delay_s=_AGAIN_AFTER_S)

    async def emptied(self, user_id: str, environments: int) -> None:
        """The last environment is gone, and with it the last trace of the user: say so. Safe to repeat."""
        user = await self._users.get(user_id)
        if user is None or user.deleted_at is None:
            return
        await self.forget(user_id)

        async def decide(current: User) -> tuple[User, list[EventData]]:
            if current.erased_at is not None:
                return current, []
            return current.changed(erased_at=self._clock()), [UserErased(user_id=user_id, environments=environments)]

        await change_user(self._users, user, decide)
