"""Who is calling."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from libs.common.contracts.identity import Plan


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose access token was checked. `session_id` is the login this token belongs to."""

    user_id: str
    session_id: str
    plan: Plan
    is_verified: bool
    expires_at: datetime

    @property
    def is_admin(self) -> bool:
        """Admin is a plan: see libs.common.contracts.identity."""
        return self.plan is Plan.ADMIN
