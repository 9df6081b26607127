"""Sessions: begin, refresh, end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from libs.common.clock import Clock
from libs.common.context import set_actor
from libs.common.contracts.events import EventData
from libs.common.contracts.users import UserLoggedIn, UserSessionsRevoked
from libs.common.errors import DevPocketError
from services.auth.domain import RefreshToken, Session, User
from services.auth.errors import IncorrectCredentialsError, InvalidRefreshTokenError
from services.auth.ports import AccessToken, AccessTokens, DeadSessions, Sessions, Users
from services.auth.service.changes import change_user, events_about

# An event must stay below the broker's largest message, 1 MiB; an id takes 35 bytes.
_IDS_PER_EVENT = 10_000

Reason = Literal["logout", "refresh_reuse", "deactivated", "demoted"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a client gets when it signs in or refreshes."""

    access: AccessToken
    refresh: RefreshToken


class SessionService:
    """The life of sessions. `life`: how long one lasts without being used."""

    def __init__(
        self,
        users: Users,
        sessions: Sessions,
        tokens: AccessTokens,
        dead: DeadSessions,
        clock: Clock,
        *,
        life: timedelta,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._tokens = tokens
        self._dead = dead
        self._clock = clock
        self._life = life

    async def begin(self, user: User, method: Literal["password", "google"]) -> Tokens:
        """Sign `user` in, as it was when its credentials were checked.

        The session is stored first and the user second, conditionally: whoever ends all sessions of a user either
        sees this one or makes the second write fail. Raises AccountLockedError, AccountInactiveError and, when the
        credentials have changed meanwhile, IncorrectCredentialsError.
        """
        now = self._clock()
        refresh = RefreshToken.new()
        session = Session.begin(user, refresh, now, self._life)
        set_actor(user.id)

        async def decide(current: User) -> tuple[User, list[EventData]]:
            signed_in = current.logged_in(now)
            if (current.session_epoch, current.password_hash) != (user.session_epoch, user.password_hash):
                raise IncorrectCredentialsError
            return signed_in, [UserLoggedIn(user_id=user.id, session_id=session.id, method=method)]

        await self._sessions.insert(session)
        try:
            signed_in = await change_user(self._users, user, decide)
        except DevPocketError:
            await self._sessions.discard(session.id)
            raise
        return Tokens(await self._tokens.issue(signed_in, session.id, now), refresh)

    async def refresh(self, text: str) -> Tokens:
        """New tokens for an unused refresh token; a used one ends the session. Raises InvalidRefreshTokenError."""
        token = RefreshToken.parse(text)
        now = self._clock()
        session = await self._sessions.by_family(token.family_hash)
        user = await self._users.get(session.user_id) if session is not None else None
        if session is None or user is None or not session.is_usable_by(user, now):
            raise InvalidRefreshTokenError
        set_actor(user.id)
        successor = token.successor()
        if session.secret_hash == token.secret_hash and await self._sessions.rotate(
            session, successor.secret_hash, now, now + self._life
        ):
            return Tokens(await self._tokens.issue(user, session.id, now), successor)
        await self._end(user.id, session.id, "refresh_reuse")
        raise InvalidRefreshTokenError

    async def logout(self, user_id: str, session_id: str) -> None:
        """End one session: when this returns, its tokens are dead in every service that can be reached."""
        await self._end(user_id, session_id, "logout")

    async def _end(self, user_id: str, session_id: str, reason: Reason) -> None:
        events = events_about(user_id, sessions_revoked(user_id, [session_id], reason))
        await self._sessions.end(session_id, self._clock(), events)
        # Also when it was marked before: whoever did may have died before telling.
        await self._dead.store([session_id])
        await self._sessions.announce(session_id)

    async def live_ids(self, user: User) -> list[str]:
        """Ids of all sessions that `user` can still use."""
        return await self._sessions.live_ids(user, self._clock())

    async def bury(self, user_id: str, session_ids: list[str]) -> None:
        """Make the tokens of sessions void everywhere, after the user's document was written with their events."""
        await self._dead.store(session_ids)
        await self._users.announce(user_id)


def sessions_revoked(user_id: str, session_ids: list[str], reason: Reason) -> list[EventData]:
    """The events that end these sessions everywhere."""
    chunks = (session_ids[start : start + _IDS_PER_EVENT] for start in range(0, len(session_ids), _IDS_PER_EVENT))
    return [UserSessionsRevoked(user_id=user_id, session_ids=chunk, reason=reason) for chunk in chunks]
