"""Signing in with a password, or with Google."""

from __future__ import annotations

from libs.common.clock import Clock
from libs.common.contracts.events import EventData
from libs.common.contracts.identity import Plan
from libs.common.ids import new_id
from services.auth.domain.rules import username_from
from services.auth.domain.sessions import Device
from services.auth.domain.users import User
from services.auth.errors import (
    AccountInactiveError,
    EmailTakenError,
    GoogleNotConfiguredError,
    InvalidGoogleTokenError,
    UsernameTakenError,
)
from services.auth.ports import GoogleIdentities, GoogleIdentity, Users
from services.auth.service.changes import change_user, events_about
from services.auth.service.credentials import Credentials
from services.auth.service.sessions import SessionService, Tokens

_USERNAME_TRIES = 5


class SignInService:
    """Checks credentials. `google` is None when the operator has not set it up."""

    def __init__(
        self,
        users: Users,
        sessions: SessionService,
        credentials: Credentials,
        google: GoogleIdentities | None,
        clock: Clock,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._credentials = credentials
        self._google = google
        self._clock = clock

    async def with_password(self, name_or_email: str, password: str, device: Device) -> Tokens:
        """Raises IncorrectCredentialsError, AccountLockedError, AccountInactiveError."""
        user = await self._credentials.user(name_or_email, password)
        if not user.is_active:
            raise AccountInactiveError
        return await self._sessions.begin(user, "password", device)

    async def with_google(self, token: str, device: Device) -> Tokens:
        """Raises GoogleNotConfiguredError, InvalidGoogleTokenError, AccountInactiveError."""
        if self._google is None:
            raise GoogleNotConfiguredError
        identity = await self._google.identify(token)
        user = await self._users.by_google_subject(identity.subject)
        if user is None:
            user = await self._link_or_register(identity)
        if not user.is_active:
            raise AccountInactiveError
        return await self._sessions.begin(user, "google", device)

    async def _link_or_register(self, identity: GoogleIdentity) -> User:
        """Both sides must have proved the address: else whoever registers it first would own the other's account."""
        if not identity.email_verified:
            raise InvalidGoogleTokenError("Google has not verified the email address of this account")
        user = await self._users.by_email(identity.email)
        if user is None:
            return await self._register(identity)
        if not user.is_verified or user.google_subject is not None:
            raise InvalidGoogleTokenError("An account with this email exists, please sign in with its password")

        async def link(current: User) -> tuple[User, list[EventData]]:
            avatar_url = current.avatar_url or identity.picture
            return current.changed(google_subject=identity.subject, avatar_url=avatar_url), []

        return await change_user(self._users, user, link)

    async def _register(self, identity: GoogleIdentity) -> User:
        base = username_from(identity.email)
        for attempt in range(_USERNAME_TRIES):
            user = User(
                id=new_id(),
                username=base if attempt == 0 else f"{base}-{new_id()[-6:]}",
                email=identity.email,
                full_name=identity.name,
                plan=Plan.FREE,
                is_verified=True,
                created_at=self._clock(),
                google_subject=identity.subject,
                avatar_url=identity.picture,
            )
            try:
                await self._users.insert(user, events_about(user.id, user.registered()))
            except UsernameTakenError:
                continue
            except EmailTakenError as error:
                raise InvalidGoogleTokenError("Another sign-in is under way, please try again") from error
            return user
        raise UsernameTakenError
