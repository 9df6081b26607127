"""Who may call: dependencies for routes. Every route names one of them, or says that it is public."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.types import Scope

from libs.common.context import set_actor
from libs.common.contracts.identity import Scope as KeyScope
from libs.common.errors import ForbiddenError, UnauthenticatedError
from libs.common.http.address import client_address
from libs.common.security.principal import Principal
from libs.common.security.sightings import Sightings
from libs.common.security.tokens import TokenVerifier

_scheme = HTTPBearer(
    auto_error=False,
    bearerFormat="JWT or API key",
    description="The access token from /api/v1/auth/login, or an API key from /api/v1/auth/api-keys",
)


def bearer_token(scope: Scope) -> str | None:
    """The token of the Authorization header (RFC 6750), or None."""
    scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


async def current_principal(request: Request, _: Annotated[object, Depends(_scheme)]) -> Principal:
    """Any user, by an access token or by an API key of whatever scope. Raises UnauthenticatedError."""
    token = bearer_token(request.scope)
    if token is None:
        raise UnauthenticatedError("Not authenticated")
    tokens: TokenVerifier = request.app.state.platform.tokens
    sightings: Sightings = request.app.state.platform.sightings
    principal = await tokens.verify(token)
    sightings.note(principal, client_address(request.scope))
    set_actor(principal.user_id)
    structlog.contextvars.bind_contextvars(user_id=principal.user_id)
    return principal


async def signed_in(principal: Annotated[Principal, Depends(current_principal)]) -> Principal:
    """Who signed in. Raises ForbiddenError for an API key: a lost one must not be able to make others."""
    if not principal.is_signed_in:
        raise ForbiddenError("This needs a sign-in; an API key cannot do it")
    return principal


async def current_admin(principal: Annotated[Principal, Depends(current_principal)]) -> Principal:
    """An admin. Raises ForbiddenError for other users, and for API keys without the scope `admin`."""
    if not principal.is_admin:
        raise ForbiddenError("Only an administrator may do this")
    return principal


def scoped(scope: KeyScope) -> Callable[[Principal], Awaitable[Principal]]:
    """A dependency: any user; an API key must have this scope. Raises ForbiddenError."""

    async def within_scope(principal: Annotated[Principal, Depends(current_principal)]) -> Principal:
        if not principal.may(scope):
            raise ForbiddenError(f"This API key lacks the scope '{scope}'")
        return principal

    return within_scope


CurrentUser = Annotated[Principal, Depends(current_principal)]
SignedInUser = Annotated[Principal, Depends(signed_in)]
EnvironmentsUser = Annotated[Principal, Depends(scoped(KeyScope.ENVIRONMENTS))]
CurrentAdmin = Annotated[Principal, Depends(current_admin)]
