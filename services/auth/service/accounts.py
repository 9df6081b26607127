"""Accounts: register, look up, administer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from libs.common.clock import Clock
from libs.common.context import set_actor
from libs.common.contracts.events import EventData
from libs.common.contracts.identity import Plan
from libs.common.contracts.users import EndReason, UserPlanChanged, UserUnlocked, UserUpdated
from libs.common.errors import UnauthenticatedError
from libs.common.ids import new_id
from services.auth.domain.rules import check_password, check_username
from services.auth.domain.users import User
from services.auth.errors import EmailTakenError, OwnAccountError, UsernameTakenError, UserNotFoundError
from services.auth.ports import PasswordHasher, Users
from services.auth.service.changes import events_about
from services.auth.service.sessions import SessionService


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What a person fills in."""

    username: str
    email: str
    password: str
    full_name: str | None = None


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What an administrator may change; None leaves it as it is."""

    plan: Plan | None = None
    is_active: bool | None = None
    is_verified: bool | None = None
    unlock: bool = False


class AccountService:
    """Accounts and who may be what."""

    def __init__(self, users: Users, sessions: SessionService, hasher: PasswordHasher, clock: Clock) -> None:
        self._users = users
        self._sessions = sessions
        self._hasher = hasher
        self._clock = clock

    async def register(self, account: NewAccount) -> User:
        """A free account. Raises EmailTakenError, UsernameTakenError, and ValueError for a bad name or password."""
        return await self._create(account, Plan.FREE, verified=False)

    async def create_admin(self, account: NewAccount) -> User:
        """An administrator, verified. Raises what `register` raises."""
        return await self._create(account, Plan.ADMIN, verified=True)

    async def _create(self, account: NewAccount, plan: Plan, *, verified: bool) -> User:
        check_username(account.username)
        check_password(account.password)
        # Refused before the slow hash where possible; the unique indexes decide.
        if await self._users.by_email(account.email) is not None:
            raise EmailTakenError
        if await self._users.by_name(account.username) is not None:
            raise UsernameTakenError
        user = User(
            id=new_id(),
            username=account.username,
            email=account.email,
            full_name=account.full_name,
            plan=plan,
            is_verified=verified,
            created_at=self._clock(),
            password_hash=await self._hasher.hash(account.password),
        )
        set_actor(user.id)
        await self._users.insert(user, events_about(user.id, user.registered()))
        return user

    async def exists(self, email: str) -> bool:
        """Whether an account has this address."""
        return await self._users.by_email(email) is not None

    async def of_caller(self, user_id: str) -> User:
        """The account of a signed-in caller. Raises UnauthenticatedError when it is gone or deactivated."""
        user = await self._users.get(user_id)
        if user is None or not user.is_active:
            raise UnauthenticatedError
        return user

    async def find(self, name_or_email: str) -> User:
        """For administration. Raises UserNotFoundError."""
        user = await (
            self._users.by_email(name_or_email) if "@" in name_or_email else self._users.by_name(name_or_email)
        )
        if user is None:
            raise UserNotFoundError
        return user

    async def page(self, query: str, after: str | None, limit: int) -> tuple[list[User], str | None]:
        """Up to `limit` accounts that match, and the cursor of the next page if there is one."""
        found = await self._users.page(query, after, limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def administer(self, user_id: str, change: AccountChange, *, by: str | None) -> User:
        """Change somebody's account; `by` is the administrator. Raises UserNotFoundError, OwnAccountError.

        Who is deactivated or stops being an administrator is signed out everywhere, because access tokens carry both.
        """
        user = await self._users.get(user_id)
        if user is None or user.deleted_at is not None:
            raise UserNotFoundError
        reason = _reason_to_sign_out(user, change)

        def decide(current: User) -> tuple[User, list[EventData]]:
            if current.deleted_at is not None:
                raise UserNotFoundError
            if by == current.id and _reason_to_sign_out(current, change) is not None:
                raise OwnAccountError
            return _apply(current, change)

        return await self._sessions.change_and_end(user, decide, reason or "deactivated")


def _apply(user: User, change: AccountChange) -> tuple[User, list[EventData]]:
    """The changed user, or the very same one when nothing changes, and the events that say so."""
    fields: dict[str, Any] = {}
    if change.plan is not None and change.plan is not user.plan:
        fields["plan"] = change.plan
    if change.is_active is not None and change.is_active is not user.is_active:
        fields["is_active"] = change.is_active
    if change.is_verified is not None and change.is_verified is not user.is_verified:
        fields["is_verified"] = change.is_verified
    if change.unlock and (user.locked_until is not None or user.failed_logins):
        fields |= {"locked_until": None, "failed_logins": 0}
    if not fields:
        return user, []
    if _reason_to_sign_out(user, change) is not None:
        fields["session_epoch"] = user.session_epoch + 1
    changed = user.changed(**fields)
    events: list[EventData] = []
    if "plan" in fields:
        events.append(UserPlanChanged(**changed.state))
    if "is_active" in fields or "is_verified" in fields:
        events.append(UserUpdated(**changed.state))
    if "failed_logins" in fields:
        events.append(UserUnlocked(user_id=user.id))
    return changed, events


def _reason_to_sign_out(user: User, change: AccountChange) -> EndReason | None:
    if user.is_active and change.is_active is False:
        return "deactivated"
    if user.plan is Plan.ADMIN and change.plan not in {None, Plan.ADMIN}:
        return "demoted"
    return None
