"""/api/v1/auth: getting in and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from libs.common.http.address import client_address
from libs.common.http.auth import SignedInUser
from libs.common.http.problems import responses
from libs.common.http.rate_limit import RouteLimit
from libs.common.http.routing import CallerFirstRoute
from services.auth.deps import Accounts, Keys, Sessions, SignIn
from services.auth.domain.sessions import Device
from services.auth.schemas.accounts import MessageOut, UserOut
from services.auth.schemas.keys import JsonWebKey, JwksOut
from services.auth.schemas.sign_in import GoogleIn, LoginIn, RefreshIn, RegisterIn, TokensOut
from services.auth.service.accounts import NewAccount

# Well below PUBLISHED_AHEAD of the key ring.
_JWKS_MAX_AGE_S = 60

router = APIRouter(route_class=CallerFirstRoute, prefix="/api/v1/auth", tags=["auth"])


async def _address(request: Request) -> str:
    return client_address(request.scope)


async def _user_agent(request: Request) -> str | None:
    return request.headers.get("user-agent")


Address = Annotated[str, Depends(_address)]
UserAgent = Annotated[str | None, Depends(_user_agent)]


@router.post(
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


@router.post(
    "/login",
    summary="Sign in with a password",
    responses=responses(401),
    dependencies=[Depends(RouteLimit("login"))],
)
async def login(body: LoginIn, sign_in: SignIn, address: Address, user_agent: UserAgent) -> TokensOut:
    """Public. After five wrong passwords in a row the account is locked for half an hour."""
    device = Device.of(body.device_name, user_agent, address)
    return TokensOut.of(await sign_in.with_password(body.username_or_email, body.password, device))


@router.post(
    "/google",
    summary="Sign in with Google",
    responses=responses(401),
    dependencies=[Depends(RouteLimit("login"))],
)
async def google(body: GoogleIn, sign_in: SignIn, address: Address, user_agent: UserAgent) -> TokensOut:
    """Public. `token` is the ID token that the app got from Google; makes an account at the first time."""
    return TokensOut.of(await sign_in.with_google(body.token, Device.of(body.device_name, user_agent, address)))


@router.post("/refresh", summary="Exchange a refresh token", responses=responses(401))
async def refresh(body: RefreshIn, sessions: Sessions, address: Address) -> TokensOut:
    """Public. Each refresh token works once; using one again ends its session."""
    return TokensOut.of(await sessions.refresh(body.refresh_token, address))


@router.post("/logout", summary="Sign out", responses=responses(401, 403))
async def logout(principal: SignedInUser, sessions: Sessions) -> MessageOut:
    """Who signed in. Ends this session: its access and refresh tokens are dead at once, in every service."""
    await sessions.logout(principal.user_id, principal.session_id)
    return MessageOut(message="Successfully logged out")


@router.get("/.well-known/jwks.json", summary="Keys that access tokens are signed with")
async def jwks(keys: Keys, response: Response) -> JwksOut:
    """Public."""
    response.headers["Cache-Control"] = f"public, max-age={_JWKS_MAX_AGE_S}"
    return JwksOut(keys=[JsonWebKey(kid=key.kid, x=key.x) for key in await keys.published()])
