"""/api/v1/audit: who did what, for administrators."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from libs.common.history.query import parse_time
from libs.common.http.auth import CurrentAdmin
from libs.common.http.problems import responses
from libs.common.http.routing import CallerFirstRoute
from services.auth.deps import Audit
from services.auth.domain.audit import AuditEntry, AuditQuery
from services.auth.schemas.audit import AuditOut, AuditPageOut

_NDJSON = "application/x-ndjson"
_CHUNK_CHARS = 64 * 1024
_TIME = "30s, 10m, 2h, 7d (ago), or an ISO 8601 time"

router = APIRouter(route_class=CallerFirstRoute, prefix="/api/v1/audit", tags=["audit"], responses=responses(401, 403))

Name = Annotated[str | None, Query(max_length=128)]
Time = Annotated[str | None, Query(max_length=64, description=_TIME)]


async def _query(
    user: Name = None, actor: Name = None, action: Name = None, since: Time = None, until: Time = None
) -> AuditQuery:
    """`user`: whose account or environment it is about. `actor`: who did it. `action`: such as `user.logged_in`."""
    return AuditQuery(
        user_id=user,
        actor=actor,
        action=action,
        since=parse_time(since) if since else None,
        until=parse_time(until) if until else None,
    )


Wanted = Annotated[AuditQuery, Depends(_query)]


@router.get("", summary="Who did what")
async def list_entries(
    _: CurrentAdmin,
    audit: Audit,
    query: Wanted,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[
        str | None, Query(pattern="^[0-9a-f]{32}$", description="`next_cursor` of the page before")
    ] = None,
) -> AuditPageOut:
    """Administrators. The newest first."""
    found, following = await audit.page(query, cursor, limit)
    return AuditPageOut(entries=[AuditOut.of(entry) for entry in found], next_cursor=following)


@router.get(
    "/export",
    summary="Export who did what",
    response_class=StreamingResponse,
    responses={200: {"content": {_NDJSON: {"schema": {"type": "string"}}}}},
)
async def export_entries(_: CurrentAdmin, audit: Audit, query: Wanted) -> StreamingResponse:
    """Administrators. NDJSON, the oldest first, one entry per line."""
    entries = audit.all(query)
    # What goes wrong at the start still becomes a proper answer.
    first = await anext(entries, None)
    headers = {"Content-Disposition": 'attachment; filename="audit.ndjson"', "Cache-Control": "no-store"}
    return StreamingResponse(_lines(first, entries), media_type=_NDJSON, headers=headers)


async def _lines(first: AuditEntry | None, entries: AsyncGenerator[AuditEntry]) -> AsyncIterator[str]:
    async with aclosing(entries):
        if first is None:
            return
        chunk = AuditOut.of(first).model_dump_json() + "\n"
        async for entry in entries:
            chunk += AuditOut.of(entry).model_dump_json() + "\n"
            if len(chunk) > _CHUNK_CHARS:
                yield chunk
                chunk = ""
        yield chunk
