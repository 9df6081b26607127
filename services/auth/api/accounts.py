"""/api/v1/auth: the caller's own account."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from libs.common.http.auth import CurrentUser, SignedInUser
from libs.common.http.problems import responses
from libs.common.http.rate_limit import RouteLimit
from libs.common.http.routing import CallerFirstRoute
from services.auth.deps import Accounts, Deletion, Recovery
from services.auth.schemas.accounts import ChangePasswordIn, DeletionIn, MessageOut, UserOut

router = APIRouter(route_class=CallerFirstRoute, prefix="/api/v1/auth", tags=["auth"], responses=responses(401))


@router.get("/me", summary="Who am I?")
async def me(principal: CurrentUser, accounts: Accounts) -> UserOut:
    """Any user."""
    return UserOut.of(await accounts.of_caller(principal.user_id))


@router.delete(
    "/me",
    status_code=202,
    summary="Delete my account",
    responses=responses(403),
    dependencies=[Depends(RouteLimit("password"))],
)
async def delete_me(principal: SignedInUser, deletion: Deletion, body: DeletionIn | None = None) -> MessageOut:
    """Who signed in, with the password. The account is gone at once, and everything that belongs to it soon after.

    That is environments with their files, sessions and API keys. An account without a password, that is one that signs
    in with Google, needs a sign-in of the last ten minutes instead.
    """
    await deletion.delete_own(principal.user_id, principal.session_id, body.password if body is not None else None)
    return MessageOut(message="Account deletion started")


@router.post(
    "/change-password",
    summary="Change my password",
    responses=responses(403),
    dependencies=[Depends(RouteLimit("password"))],
)
async def change_password(principal: SignedInUser, body: ChangePasswordIn, recovery: Recovery) -> MessageOut:
    """Who signed in, with the present password. Signs out all other devices."""
    await recovery.change(principal.user_id, principal.session_id, body.current_password, body.new_password)
    return MessageOut(message="Password changed, all other devices are signed out")
