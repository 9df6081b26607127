"""Sessions: begin, refresh, list, end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from libs.common.clock import Clock
from libs.common.context import set_actor
from libs.common.contracts.base import EventData
from libs.common.contracts.users import EndReason, SignInMethod, UserLoggedIn, UserSessionsRevoked, UserUpdated
from libs.common.errors import DevPocketError
from libs.common.security.api_keys import key_session_id
from services.auth.domain.sessions import Device, RefreshToken, Session
from services.auth.domain.users import User
from services.auth.errors import IncorrectCredentialsError, InvalidRefreshTokenError, SessionNotFoundError
from services.auth.ports import AccessToken, AccessTokens, ApiKeys, DeadSessions, Rotation, Sessions, Users
from services.auth.service.changes import change_user, events_about

# An event must stay below the broker's largest message, 1 MiB; an id takes 35 bytes.
_IDS_PER_EVENT = 10_000

Change = Callable[[User], tuple[User, list[EventData]]]


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
        api_keys: ApiKeys,
        *,
        tokens: AccessTokens,
        dead: DeadSessions,
        clock: Clock,
        life: timedelta,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._api_keys = api_keys
        self._tokens = tokens
        self._dead = dead
        self._clock = clock
        self._life = life

    async def begin(self, user: User, method: SignInMethod, device: Device) -> Tokens:
        """Sign `user` in, as it was when its credentials were checked.

        The session is stored first and the user second, conditionally: whoever ends all sessions of a user either
        sees this one or makes the second write fail. Raises AccountLockedError, AccountInactiveError and, when the
        credentials have changed meanwhile, IncorrectCredentialsError.
        """
        now = self._clock()
        refresh = RefreshToken.new()
        session = Session.begin(user, device, refresh, now, self._life)
        set_actor(user.id)

        async def decide(current: User) -> tuple[User, list[EventData]]:
            signed_in = current.logged_in(now)
            if (current.session_epoch, current.password_hash) != (user.session_epoch, user.password_hash):
                raise IncorrectCredentialsError
            event = UserLoggedIn(user_id=user.id, session_id=session.id, method=method, device=session.device)
            return signed_in, [event]

        await self._sessions.insert(session)
        try:
            signed_in = await change_user(self._users, user, decide)
        except DevPocketError:
            await self._sessions.discard(session.id)
            raise
        return Tokens(await self._tokens.issue(signed_in, session.id, now), refresh)

    async def refresh(self, text: str, address: str | None) -> Tokens:
        """New tokens for an unused refresh token; a used one ends the session. Raises InvalidRefreshTokenError."""
        token = RefreshToken.parse(text)
        now = self._clock()
        session = await self._sessions.by_family(token.family_hash)
        user = await self._users.get(session.user_id) if session is not None else None
        if session is None or user is None or not session.is_usable_by(user, now):
            raise InvalidRefreshTokenError
        set_actor(user.id)
        successor = token.successor()
        rotation = Rotation(successor.secret_hash, now, address, now + self._life)
        if session.secret_hash == token.secret_hash and await self._sessions.rotate(session, rotation):
            return Tokens(await self._tokens.issue(user, session.id, now), successor)
        await self._end(user.id, session.id, "refresh_reuse")
        raise InvalidRefreshTokenError

    async def logout(self, user_id: str, session_id: str) -> None:
        """End one session: when this returns, its tokens are dead in every service that can be reached."""
        await self._end(user_id, session_id, "logout")

    async def page(self, user_id: str, before: str | None, limit: int) -> tuple[list[Session], str | None]:
        """Up to `limit` of the user's live sessions, and the cursor of the next page if there is one."""
        user = await self._users.get(user_id)
        found = await self._sessions.page(user, self._clock(), before, limit + 1) if user is not None else []
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def end_one(self, user_id: str, session_id: str) -> None:
        """End one of the user's own sessions. Raises SessionNotFoundError."""
        session = await self._sessions.get(session_id)
        user = await self._users.get(user_id)
        owned = session is not None and session.user_id == user_id
        if session is None or user is None or not owned or not session.is_usable_by(user, self._clock()):
            raise SessionNotFoundError
        await self._end(user_id, session_id, "signed_out")

    async def end_all(self, user_id: str, *, keep: str | None = None) -> None:
        """End all of the user's sessions but `keep`."""
        user = await self._users.get(user_id)
        if user is not None:
            await self.change_and_end(user, _next_epoch, "signed_out", keep=keep)

    async def change_and_end(self, user: User, change: Change, reason: EndReason, *, keep: str | None = None) -> User:
        """Write `change`, which raises the user's epoch, and end with it every session but `keep`.

        `change` sees the newest state and may run again; when it returns that very state nothing happens. API keys
        go on in the next epoch, but what is open by them closes. Raises what `change` raises, and UserNotFoundError.
        """
        ended: list[str] = []
        said: list[EventData] = []

        async def decide(current: User) -> tuple[User, list[EventData]]:
            nonlocal ended, said
            changed, said = change(current)
            ended = []
            if changed.session_epoch != current.session_epoch:
                ended = [found for found in await self._live_ids(current) if found != keep]
                said = [*said, *sessions_revoked(user.id, ended, reason)]
            return changed, said

        changed = await change_user(self._users, user, decide)
        if keep is not None and said:
            await self._sessions.move(keep, changed.session_epoch)
        await self._dead.store(ended)
        if said:
            # Whoever asks another service next meets what was changed here.
            await self._users.announce(user.id)
        return changed

    async def _end(self, user_id: str, session_id: str, reason: EndReason) -> None:
        events = events_about(user_id, sessions_revoked(user_id, [session_id], reason))
        await self._sessions.end(session_id, self._clock(), events)
        # Also when it was marked before: whoever did may have died before telling.
        await self._dead.store([session_id])
        await self._sessions.announce(session_id)

    async def _live_ids(self, user: User) -> list[str]:
        """What tokens and keys of this user are known by to revocations, in the present epoch."""
        keys = await self._api_keys.of(user.id)
        sessions = await self._sessions.live_ids(user, self._clock())
        return [*sessions, *(key_session_id(key.id, user.session_epoch) for key in keys)]


def sessions_revoked(user_id: str, session_ids: list[str], reason: EndReason) -> list[EventData]:
    """The events that end these sessions everywhere."""
    chunks = (session_ids[start : start + _IDS_PER_EVENT] for start in range(0, len(session_ids), _IDS_PER_EVENT))
    return [UserSessionsRevoked(user_id=user_id, session_ids=chunk, reason=reason) for chunk in chunks]


def _next_epoch(user: User) -> tuple[User, list[EventData]]:
    changed = replace(user.changed(), session_epoch=user.session_epoch + 1)
    return changed, [UserUpdated(**changed.state)]
