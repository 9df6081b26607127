"""Verified addresses, and passwords that are changed or were forgotten."""

from __future__ import annotations

from libs.common.clock import Clock
from libs.common.context import set_actor
from libs.common.contracts.base import EventData
from libs.common.contracts.users import MailPurpose
from libs.common.errors import UnauthenticatedError
from services.auth.domain.links import Link, link_hash
from services.auth.domain.rules import check_password
from services.auth.domain.users import User
from services.auth.errors import IncorrectPasswordError, InvalidLinkError, MailNotConfiguredError
from services.auth.ports import Links, PasswordHasher, Users
from services.auth.service.api_keys import ApiKeyService
from services.auth.service.changes import change_user
from services.auth.service.credentials import Credentials
from services.auth.service.sessions import SessionService


class RecoveryService:
    """`sends_mails`: whether the operator has set up how."""

    def __init__(
        self,
        users: Users,
        links: Links,
        sessions: SessionService,
        api_keys: ApiKeyService,
        *,
        credentials: Credentials,
        hasher: PasswordHasher,
        clock: Clock,
        sends_mails: bool,
    ) -> None:
        self._users = users
        self._links = links
        self._sessions = sessions
        self._api_keys = api_keys
        self._credentials = credentials
        self._hasher = hasher
        self._clock = clock
        self._sends_mails = sends_mails

    async def ask_for_mail(self, email: str, purpose: MailPurpose) -> None:
        """Has a mail sent if there is such an account and it needs one. Raises MailNotConfiguredError."""
        if not self._sends_mails:
            raise MailNotConfiguredError
        user = await self._users.by_email(email)
        if user is None:
            return

        async def decide(current: User) -> tuple[User, list[EventData]]:
            return current.asked_for_mail(purpose, self._clock())

        await change_user(self._users, user, decide)

    async def verify(self, token: str) -> None:
        """The address is verified. Raises InvalidLinkError."""
        _, user = await self._follow(token, "verify_email")

        async def decide(current: User) -> tuple[User, list[EventData]]:
            return current.verified()

        await change_user(self._users, user, decide)
        # So that envs knows when the owner creates an environment next.
        await self._users.announce(user.id)

    async def reset(self, token: str, password: str) -> None:
        """Another password for who forgot it; ends all sign-ins. Raises InvalidLinkError, ValueError.

        Whoever registered an address before it was proved may have been somebody else: their API keys go as well.
        """
        check_password(password)
        link, user = await self._follow(token, "reset_password")
        if not user.is_verified:
            await self._api_keys.revoke_all(user)
        password_hash = await self._hasher.hash(password)

        def change(current: User) -> tuple[User, list[EventData]]:
            link.require_fits(current)
            changed = current.with_password(password_hash, self._clock(), "reset")
            return changed, changed.password_changed("reset")

        await self._sessions.change_and_end(user, change, "password_reset")

    async def change(self, user_id: str, session_id: str, current_password: str, password: str) -> None:
        """Another password for who knows the present one; ends all other sign-ins.

        Raises IncorrectPasswordError, AccountLockedError, ValueError.
        """
        check_password(password)
        user = await self._users.get(user_id)
        if user is None or not user.is_active:
            raise UnauthenticatedError
        await self._credentials.confirm(user, current_password)
        password_hash = await self._hasher.hash(password)

        def change(current: User) -> tuple[User, list[EventData]]:
            if current.password_hash != user.password_hash:
                raise IncorrectPasswordError
            changed = current.with_password(password_hash, self._clock(), "change")
            return changed, changed.password_changed("change")

        await self._sessions.change_and_end(user, change, "password_changed", keep=session_id)

    async def _follow(self, token: str, purpose: MailPurpose) -> tuple[Link, User]:
        link = await self._links.use(link_hash(token), purpose, self._clock())
        user = await self._users.get(link.user_id) if link is not None else None
        if link is None or user is None:
            raise InvalidLinkError
        link.require_fits(user)
        set_actor(user.id)
        return link, user
