"""What events about users, and about the ends of their sessions, change in what is stored."""

from __future__ import annotations

from libs.common.contracts.events import EventData, TerminalSessionClosed
from libs.common.contracts.users import UserDeleted
from services.terminal.ports import SessionStore, Users


class Accounts:
    """Keeps the read model of users, and no sessions of those who are gone.

    A session can be deleted once the bus has heard of its end. Whichever is handled last, that or the deletion of its
    user, finds what the other one has left in the store.
    """

    def __init__(self, users: Users, sessions: SessionStore) -> None:
        self._users = users
        self._sessions = sessions

    async def user_event(self, data: EventData) -> None:
        """Safe to repeat, in any order."""
        await self._users.apply(data)
        if isinstance(data, UserDeleted):
            await self._sessions.forget(data.user_id)

    async def session_closed(self, data: TerminalSessionClosed) -> None:
        """As the bus tells it, so that it is published. Safe to repeat."""
        await self._sessions.told(data.session_id)
        user = (await self._users.find_many([data.user_id])).get(data.user_id)
        if user is not None and user.is_deleted:
            await self._sessions.forget(data.user_id)
