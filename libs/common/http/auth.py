"""Who may call: dependencies for routes. Every route names one of them, or says that it is public."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.types import Scope

from libs.common.context import set_actor
from libs.common.errors import ForbiddenError, UnauthenticatedError
from libs.common.security.principal import Principal
from libs.common.security.tokens import TokenVerifier

_scheme = HTTPBearer(auto_error=False, bearerFormat="JWT", description="The access token from /api/v1/auth/login")


def bearer_token(scope: Scope) -> str | None:
    """The token of the Authorization header (RFC 6750), or None."""
    scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


async def current_principal(request: Request, _: Annotated[object, Depends(_scheme)]) -> Principal:
    """Any signed-in user. Raises UnauthenticatedError."""
    token = bearer_token(request.scope)
    if token is None:
        raise UnauthenticatedError("Not authenticated")
    tokens: TokenVerifier = request.app.state.platform.tokens
    principal = await tokens.verify(token)
    set_actor(principal.user_id)
    structlog.contextvars.bind_contextvars(user_id=principal.user_id)
    return principal


async def current_admin(principal: Annotated[Principal, Depends(current_principal)]) -> Principal:
    """An admin. Raises ForbiddenError for other users."""
    if not principal.is_admin:
        raise ForbiddenError("Only an administrator may do this")
    return principal


CurrentUser = Annotated[Principal, Depends(current_principal)]
CurrentAdmin = Annotated[Principal, Depends(current_admin)]
