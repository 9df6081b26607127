"""Histories of one account, made by auth's own domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from libs.common.clock import utc_now
from libs.common.contracts.identity import Plan
from libs.common.contracts.users import UserDeleted, UserPlanChanged, UserRegistered, UserState, UserUpdated
from libs.common.ids import new_id
from services.auth.domain.users import User
from services.envs.plans import Account

OUTDATED: dict[str, Any] = {
    "username": "u",
    "plan": Plan.FREE,
    "is_active": True,
    "is_verified": True,
    "version": 0,
}
"""What an event says of a user that changes nothing where the user is known."""


@dataclass(frozen=True, slots=True)
class _Change:
    """With neither plan nor activity it is the deletion."""

    plan: Plan | None = None
    is_active: bool | None = None
    silent_writes: int = 0


_silent_writes = st.integers(0, 2)
_changes = (
    st.builds(_Change, plan=st.sampled_from(Plan), silent_writes=_silent_writes)
    | st.builds(_Change, is_active=st.booleans(), silent_writes=_silent_writes)
    | st.builds(_Change, silent_writes=_silent_writes)
)


def _lived(changes: list[_Change]) -> list[UserState]:
    """What auth says: versions rise, with holes where a write (a login) told the others nothing.

    A deletion is the end.
    """
    user = User(
        id=new_id(),
        username="u",
        email="u@example.com",
        full_name=None,
        plan=Plan.FREE,
        is_verified=True,
        created_at=utc_now(),
    )
    told: list[UserState] = [UserRegistered(**user.state)]
    for change in changes:
        for _ in range(change.silent_writes):
            user = user.logged_in(utc_now()) if user.is_active else user.changed()
        if change.plan is not None:
            user = user.changed(plan=change.plan)
            told.append(UserPlanChanged(**user.state))
        elif change.is_active is not None:
            user = user.changed(is_active=change.is_active)
            told.append(UserUpdated(**user.state))
        else:
            told.append(UserDeleted(**user.deleted(utc_now()).state))
            break
    return told


account_histories: st.SearchStrategy[list[UserState]] = st.lists(_changes, max_size=8).map(_lived)


def newest(history: list[UserState]) -> Account:
    """What must be known in the end."""
    last = history[-1]
    return Account(
        last.user_id,
        last.plan,
        is_active=last.is_active,
        is_verified=last.is_verified,
        is_deleted=isinstance(last, UserDeleted),
        version=last.version,
    )
