"""The audit trail, written from events and read by administrators."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from libs.common.contracts.events import Event
from services.auth.domain.audit import AuditEntry, AuditQuery, entry_of
from services.auth.ports import AuditTrail


class AuditService:
    """Keeps what is worth it; safe to tell the same again."""

    def __init__(self, trail: AuditTrail) -> None:
        self._trail = trail

    async def record(self, event: Event) -> None:
        """Remember an event if it is somebody's deed."""
        entry = entry_of(event)
        if entry is not None:
            await self._trail.keep(entry)

    async def page(self, query: AuditQuery, before: str | None, limit: int) -> tuple[list[AuditEntry], str | None]:
        """Up to `limit` entries, the newest first, and the cursor of the next page if there is one."""
        found = await self._trail.page(query, before, limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    def all(self, query: AuditQuery) -> AsyncGenerator[AuditEntry]:
        """Every entry that fits, the oldest first."""
        return self._trail.all(query)
