"""The audit trail as administrators see it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from services.auth.domain.audit import AuditEntry


class AuditOut(BaseModel):
    """Who did what to what, when, from where."""

    id: str = Field(description="The id of the event that tells of it")
    at: datetime
    action: str = Field(examples=["user.logged_in"])
    actor: str = Field(description="A user id, or the service or tool that acted on its own")
    address: str | None = Field(description="The network address that the person acted from")
    subject: str = Field(description="The id of the user, environment or cluster that it is about")
    user_id: str | None = Field(description="Whose account or environment it is about")
    correlation_id: str | None = Field(description="The request that started it")
    details: dict[str, Any]

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        """As the API answers."""
        return cls(
            id=entry.id,
            at=entry.at,
            action=entry.action,
            actor=entry.actor,
            address=entry.address,
            subject=entry.subject,
            user_id=entry.user_id,
            correlation_id=entry.correlation_id,
            details=dict(entry.details),
        )


class AuditPageOut(BaseModel):
    """The newest entries first."""

    entries: list[AuditOut]
    next_cursor: str | None = Field(description="For the next page; missing at the end")
