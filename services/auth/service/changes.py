"""Changing a user: read, decide, write if nobody else did, else again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from libs.common.context import current_cause
from libs.common.contracts.events import Event, EventData
from libs.common.errors import UnavailableError
from services.auth.domain.users import User
from services.auth.errors import UserNotFoundError
from services.auth.ports import Users

SOURCE = "auth"

# Every failed try means that another writer got through, so this many in a row is a flood and not bad luck.
_MAX_TRIES = 100

Decision = Callable[[User], Awaitable[tuple[User, list[EventData]]]]


def events_about(user_id: str, data: Iterable[EventData]) -> list[Event]:
    """Envelopes, caused by what this task is doing."""
    return [Event.new(item, subject=user_id, source=SOURCE, cause=current_cause()) for item in data]


async def change_user(users: Users, user: User, decide: Decision) -> User:
    """Store what `decide` makes of the user, and its events, in one write. `user` is the state read last.

    `decide` sees the newest state and runs again when another write came between. Raises what `decide` raises,
    and UserNotFoundError.
    """
    current: User | None = user
    for _ in range(_MAX_TRIES):
        if current is None:
            raise UserNotFoundError
        changed, data = await decide(current)
        if changed is current:
            return current
        if await users.save(changed, events_about(current.id, data)):
            return changed
        current = await users.get(user.id)
    raise UnavailableError("Too many requests for this account at the same time, please try again in a moment")
