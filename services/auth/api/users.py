"""/api/v1/users: accounts, for administrators."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Response

from libs.common.http.auth import CurrentAdmin
from libs.common.http.paging import LINK_TO_NEXT
from libs.common.http.problems import responses
from libs.common.http.routing import CallerFirstRoute
from services.auth.deps import Accounts, Deletion
from services.auth.schemas.accounts import MessageOut, UserOut, UserPatch
from services.auth.service.accounts import AccountChange

router = APIRouter(route_class=CallerFirstRoute, prefix="/api/v1/users", tags=["users"])

UserId = Annotated[str, Path(max_length=64)]


@router.get("", summary="Find accounts", responses={**responses(401, 403), **LINK_TO_NEXT})
async def list_users(
    _: CurrentAdmin,
    accounts: Accounts,
    response: Response,
    q: Annotated[str, Query(max_length=100, description="Part of a user name or address")] = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Annotated[str | None, Query(pattern="^[0-9a-f]{32}$", description="From the Link header")] = None,
) -> list[UserOut]:
    """Administrators. `Link: <…>; rel="next"` when there are more."""
    users, following = await accounts.page(q.strip(), cursor, limit)
    if following is not None:
        query = urlencode({"q": q, "limit": limit, "cursor": following} if q else {"limit": limit, "cursor": following})
        response.headers["Link"] = f'<{router.prefix}?{query}>; rel="next"'
    return [UserOut.of(user) for user in users]


@router.patch("/{user_id}", summary="Change an account", responses=responses(401, 403, 404, 409))
async def patch_user(user_id: UserId, body: UserPatch, admin: CurrentAdmin, accounts: Accounts) -> UserOut:
    """Administrators. Who is deactivated, or is an administrator no longer, is signed out everywhere."""
    change = AccountChange(
        plan=body.subscription_plan, is_active=body.is_active, is_verified=body.is_verified, unlock=body.unlock
    )
    return UserOut.of(await accounts.administer(user_id, change, by=admin.user_id))


@router.delete("/{user_id}", status_code=202, summary="Delete an account", responses=responses(401, 403, 404, 409))
async def delete_user(user_id: UserId, admin: CurrentAdmin, deletion: Deletion) -> MessageOut:
    """Administrators. The account is gone at once, and everything that belongs to it soon after."""
    await deletion.delete(user_id, by=admin.user_id)
    return MessageOut(message="Account deletion started")
