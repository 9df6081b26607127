"""/api/v1/auth/api-keys: personal access tokens for programs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from libs.common.http.auth import SignedInUser
from libs.common.http.problems import responses
from libs.common.http.routing import CallerFirstRoute
from services.auth.deps import ApiKeys
from services.auth.schemas.accounts import MessageOut
from services.auth.schemas.api_keys import ApiKeyIn, ApiKeyOut, NewApiKeyOut

router = APIRouter(
    route_class=CallerFirstRoute, prefix="/api/v1/auth/api-keys", tags=["api keys"], responses=responses(401, 403)
)

KeyId = Annotated[str, Path(max_length=64)]


@router.post("", status_code=201, summary="Make an API key")
async def create_api_key(principal: SignedInUser, body: ApiKeyIn, keys: ApiKeys) -> NewApiKeyOut:
    """Who signed in. `key` is shown this once only, and goes where a bearer token goes.

    Scopes: `read` sees what is yours, `environments` also changes environments, `terminal` also opens terminals,
    `admin` also uses the admin API if you are an administrator. None of them changes the account itself.
    """
    stored, key = await keys.create(principal.user_id, body.wanted())
    return NewApiKeyOut.made(stored, key)


@router.get("", summary="My API keys")
async def list_api_keys(principal: SignedInUser, keys: ApiKeys) -> list[ApiKeyOut]:
    """Who signed in. The newest first."""
    return [ApiKeyOut.of(key) for key in await keys.of(principal.user_id)]


@router.delete("/{key_id}", summary="Delete an API key", responses=responses(404))
async def delete_api_key(principal: SignedInUser, key_id: KeyId, keys: ApiKeys) -> MessageOut:
    """Who signed in. Void at once, in every service; what is open by it closes."""
    await keys.revoke(principal.user_id, key_id)
    return MessageOut(message="API key deleted")
