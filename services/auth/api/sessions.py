"""/api/v1/auth/sessions: the devices that are signed in."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Response

from libs.common.http.auth import SignedInUser
from libs.common.http.paging import LINK_TO_NEXT
from libs.common.http.problems import responses
from libs.common.http.routing import CallerFirstRoute
from services.auth.deps import Sessions
from services.auth.schemas.accounts import MessageOut
from services.auth.schemas.sign_in import SessionOut

router = APIRouter(
    route_class=CallerFirstRoute, prefix="/api/v1/auth/sessions", tags=["sessions"], responses=responses(401, 403)
)

SessionId = Annotated[str, Path(max_length=64)]


@router.get("", summary="My devices", responses=LINK_TO_NEXT)
async def list_sessions(
    principal: SignedInUser,
    sessions: Sessions,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Annotated[str | None, Query(pattern="^[0-9a-f]{32}$", description="From the Link header")] = None,
) -> list[SessionOut]:
    """Who signed in. The newest sign-in first; `Link: <…>; rel="next"` when there are more."""
    found, following = await sessions.page(principal.user_id, cursor, limit)
    if following is not None:
        query = urlencode({"limit": limit, "cursor": following})
        response.headers["Link"] = f'<{router.prefix}?{query}>; rel="next"'
    return [SessionOut.of(session, principal.session_id) for session in found]


@router.delete("", summary="Sign out everywhere")
async def end_sessions(
    principal: SignedInUser,
    sessions: Sessions,
    keep_current: Annotated[bool, Query(description="All but the one that asks")] = False,
) -> MessageOut:
    """Who signed in. Dead at once, in every service; API keys go on."""
    await sessions.end_all(principal.user_id, keep=principal.session_id if keep_current else None)
    return MessageOut(message="Signed out on all other devices" if keep_current else "Signed out on all devices")


@router.delete("/{session_id}", summary="Sign out a device", responses=responses(404))
async def end_session(principal: SignedInUser, sessions: Sessions, session_id: SessionId) -> MessageOut:
    """Who signed in. Dead at once, in every service."""
    await sessions.end_one(principal.user_id, session_id)
    return MessageOut(message="The device is signed out")
