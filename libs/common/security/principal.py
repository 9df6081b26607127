"""Who is calling."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from libs.common.contracts.identity import Plan, Scope

NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose access token or API key was checked.

    `session_id` is what revocations name: the login that a token belongs to, or an API key in its owner's present
    epoch. `scopes` is None for who signed in, and for an API key what that may do. `expires_at` may be NEVER.
    """

    user_id: str
    session_id: str
    plan: Plan
    is_verified: bool
    expires_at: datetime
    key_id: str | None = None
    scopes: frozenset[Scope] | None = None

    @property
    def is_admin(self) -> bool:
        """Admin is a plan: see libs.common.contracts.identity. An API key of an administrator must be made for it."""
        return self.plan is Plan.ADMIN and self.may(Scope.ADMIN)

    @property
    def is_signed_in(self) -> bool:
        """Whether a person has signed in, and not a program with an API key."""
        return self.scopes is None

    def may(self, scope: Scope) -> bool:
        """Whether this is within what the caller's key is for. Every scope includes reading."""
        return self.scopes is None or scope is Scope.READ or scope in self.scopes
