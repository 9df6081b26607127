"""HTTP routes: /api/v1/auth for everybody, /api/v1/users for administrators."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Response

from libs.common.http.auth import CurrentAdmin, CurrentUser
from libs.common.http.problems import responses
from libs.common.http.rate_limit import RouteLimit
from services.auth.deps import Accounts, Keys, Sessions, SignIn
from services.auth.schemas import (
    GoogleIn,
    JsonWebKey,
    JwksOut,
    LoginIn,
    MessageOut,
    RefreshIn,
    RegisterIn,
    TokensOut,
    UserOut,
    UserPatch,
)
from services.auth.service.accounts import AccountChange, NewAccount

# Well below PUBLISHED_AHEAD of the key ring.
_JWKS_MAX_AGE_S = 60

auth_router = APIRouter(prefix="/api/v1/auth", tags=["auth"])
users_router = APIRouter(prefix="/api/v1/users", tags=["users"])


@auth_router.post(
    "/register",
    status_code=201,
    summary="Create an account",
    responses=responses(400),
    dependencies=[Depends(RouteLimit("register"))],
)
async def register(body: RegisterIn, accounts: Accounts) -> UserOut:
    """Public. The account starts on the free plan."""
    user = await accounts.register(NewAccount(body.username, body.email, body.password, body.full_name))
    return UserOut.of(user)


@auth_router.post(
    "/login",
    summary="Sign in with a password",
    responses=responses(401),
    dependencies=[Depends(RouteLimit("login"))],
)
async def login(body: LoginIn, sign_in: SignIn) -> TokensOut:
    """Public. After five wrong passwords in a row the account is locked for half an hour."""
    return TokensOut.of(await sign_in.with_password(body.username_or_email, body.password))


@auth_router.post(
    "/google",
    summary="Sign in with Google",
    responses=responses(401),
    dependencies=[Depends(RouteLimit("login"))],
)
async def google(body: GoogleIn, sign_in: SignIn) -> TokensOut:
    """Public. `token` is the ID token that the app got from Google; makes an account at the first time."""
    return TokensOut.of(await sign_in.with_google(body.token))


@auth_router.post("/refresh", summary="Exchange a refresh token", responses=responses(401))
async def refresh(body: RefreshIn, sessions: Sessions) -> TokensOut:
    """Public. Each refresh token works once; using one again ends its session."""
    return TokensOut.of(await sessions.refresh(body.refresh_token))


@auth_router.get("/me", summary="Who am I?", responses=responses(401))
async def me(principal: CurrentUser, accounts: Accounts) -> UserOut:
    """Any signed-in user."""
    return UserOut.of(await accounts.of_caller(principal.user_id))


@auth_router.post("/logout", summary="Sign out", responses=responses(401))
async def logout(principal: CurrentUser, sessions: Sessions) -> MessageOut:
    """Any signed-in user. Ends this session: its access and refresh tokens are dead at once, in every service."""
    await sessions.logout(principal.user_id, principal.session_id)
    return MessageOut(message="Successfully logged out")


@auth_router.get("/.well-known/jwks.json", summary="Keys that access tokens are signed with")
async def jwks(keys: Keys, response: Response) -> JwksOut:
    """Public."""
    response.headers["Cache-Control"] = f"public, max-age={_JWKS_MAX_AGE_S}"
    return JwksOut(keys=[JsonWebKey(kid=key.kid, x=key.x) for key in await keys.published()])


@users_router.get("", summary="Find accounts", responses=responses(401, 403))
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
        response.headers["Link"] = f'<{users_router.prefix}?{query}>; rel="next"'
    return [UserOut.of(user) for user in users]


@users_router.patch("/{user_id}", summary="Change an account", responses=responses(401, 403, 404, 409))
async def patch_user(user_id: str, body: UserPatch, admin: CurrentAdmin, accounts: Accounts) -> UserOut:
    """Administrators. Who is deactivated, or is an administrator no longer, is signed out everywhere."""
    change = AccountChange(plan=body.subscription_plan, is_active=body.is_active, unlock=body.unlock)
    return UserOut.of(await accounts.administer(user_id, change, by=admin.user_id))
