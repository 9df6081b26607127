"""Events about users: `devpocket.user.<user_id>.…` from auth, `devpocket.owner.<user_id>.…` from envs."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from libs.common.contracts.base import EventData
from libs.common.contracts.identity import Plan, Scope

SignInMethod = Literal["password", "google"]
MailPurpose = Literal["verify_email", "reset_password"]
EndReason = Literal[
    "logout",
    "refresh_reuse",
    "deactivated",
    "demoted",
    "signed_out",
    "password_changed",
    "password_reset",
    "key_revoked",
    "deleted",
]


class UserEvent(EventData):
    """About one user."""

    AGGREGATE_FIELD = "user_id"

    user_id: str


class UserState(UserEvent):
    """What other services need to know of a user. A consumer keeps the newest `version`.

    `session_epoch` is the generation of sign-ins that may be used, see `libs.common.security.api_keys`.
    """

    username: str
    plan: Plan
    is_active: bool
    is_verified: bool
    session_epoch: int = 0
    version: int


class UserRegistered(UserState):
    """A new account."""

    TYPE = "user.registered.v1"


class UserPlanChanged(UserState):
    """Another subscription plan."""

    TYPE = "user.plan_changed.v1"


class UserUpdated(UserState):
    """Activated, deactivated or verified; or all sign-ins have ended, which raises `session_epoch`."""

    TYPE = "user.updated.v1"


class UserDeleted(UserState):
    """The account is gone: whoever keeps something of this user removes it. The name in it is a placeholder."""

    TYPE = "user.deleted.v1"


class UserLoggedIn(UserEvent):
    """A session began. `device` is the name it is listed by."""

    TYPE = "user.logged_in.v1"

    session_id: str
    method: SignInMethod
    device: str | None = None


class UserLoginFailed(UserEvent):
    """A wrong password; `failures` in a row so far."""

    TYPE = "user.login_failed.v1"

    failures: int


class UserLocked(UserEvent):
    """Too many wrong passwords."""

    TYPE = "user.locked.v1"

    locked_until: datetime


class UserUnlocked(UserEvent):
    """An administrator has lifted the lock."""

    TYPE = "user.unlocked.v1"


class UserSessionsRevoked(UserEvent):
    """These sessions are dead: no token of theirs is valid any more."""

    TYPE = "user.sessions_revoked.v1"

    session_ids: list[str]
    reason: EndReason


class UserPasswordChanged(UserEvent):
    """Another password: changed by someone who knew the old one, or reset by mail."""

    TYPE = "user.password_changed.v1"

    how: Literal["change", "reset"]


class UserMailRequested(UserEvent):
    """A mail with a link is to be sent. The token in the link is derived from this event's id, and never in it."""

    TYPE = "user.mail_requested.v1"

    purpose: MailPurpose


class UserApiKeyCreated(UserState):
    """A new API key: what services check it with, and its owner, of whom they may have heard nothing for long.

    `secret_hash`: SHA-256 of its 256-bit secret, in hexadecimal; None where the story was told without it.
    """

    TYPE = "user.api_key_created.v1"

    key_id: str
    name: str
    scopes: list[Scope]
    secret_hash: str | None = Field(default=None, repr=False)
    expires_at: datetime | None = None


class UserApiKeyRevoked(UserEvent):
    """An API key is void."""

    TYPE = "user.api_key_revoked.v1"

    key_id: str
    name: str


class UserErased(UserEvent):
    """The end of a deletion: nothing of the user is left in any service but the audit trail."""

    TYPE = "user.erased.v1"

    environments: int


class OwnerEmptied(UserEvent):
    """envs: the last environment of a deleted user is gone, with its workspace. `environments`: how many there were."""

    TYPE = "owner.emptied.v1"

    environments: int


USER_EVENTS: tuple[type[EventData], ...] = (
    UserRegistered,
    UserPlanChanged,
    UserUpdated,
    UserDeleted,
    UserLoggedIn,
    UserLoginFailed,
    UserLocked,
    UserUnlocked,
    UserSessionsRevoked,
    UserPasswordChanged,
    UserMailRequested,
    UserApiKeyCreated,
    UserApiKeyRevoked,
    UserErased,
    OwnerEmptied,
)
