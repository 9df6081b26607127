"""GET /api/v1/environments/{environment_id}/ports: what listens in an environment."""

from __future__ import annotations

from fastapi import APIRouter, Request

from libs.common.http.auth import CurrentUser
from libs.common.http.problems import responses
from libs.common.http.routing import CallerFirstRoute
from services.terminal.api.state import terminal_state
from services.terminal.domain import Caller, SocketKind
from services.terminal.schemas import PortAnswer

router = APIRouter(route_class=CallerFirstRoute, prefix="/api/v1/environments", tags=["previews"])


@router.get(
    "/{environment_id}/ports", summary="List the ports that programs listen at", responses=responses(401, 404, 409)
)
async def list_ports(environment_id: str, user: CurrentUser, request: Request) -> list[PortAnswer]:
    """For any user, of an environment of their own that runs; any API key will do.

    `url` shows what answers there, to who has a token or opens it with a ticket of the kind `preview`.
    """
    state = terminal_state(request)
    found = await state.previews.ports(Caller.of(user, SocketKind.LOGS), environment_id)
    return [PortAnswer(port=f.port, address=f.address, url=state.venue.url(environment_id, f.port)) for f in found]
