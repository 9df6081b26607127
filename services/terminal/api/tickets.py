"""POST /api/v1/ws/tickets: a ticket for the URL of a WebSocket or a preview."""

from __future__ import annotations

from fastapi import APIRouter, Request

from libs.common.http.auth import CurrentUser
from libs.common.http.problems import responses
from libs.common.http.routing import CallerFirstRoute
from services.terminal.api.state import terminal_state
from services.terminal.domain import Caller
from services.terminal.schemas import TicketAnswer, TicketRequest

router = APIRouter(route_class=CallerFirstRoute, prefix="/api/v1/ws", tags=["terminal"])


@router.post(
    "/tickets",
    status_code=201,
    summary="A single-use ticket for a terminal or log WebSocket, or a preview",
    responses=responses(401, 403, 404),
)
async def create_ticket(body: TicketRequest, user: CurrentUser, request: Request) -> TicketAnswer:
    """For any user, for an environment of their own. Goes into the URL as `?ticket=`.

    An API key needs the scope `terminal` for a terminal or a preview; any key is good for logs. With a ticket of
    the kind `preview` a browser opens /preview/{environment_id}/{port}/?ticket=… and gets a cookie for the environment.
    """
    desk = terminal_state(request).tickets
    ticket = await desk.issue(Caller.of(user, body.kind), body.environment_id, body.kind)
    return TicketAnswer(ticket=ticket, expires_in=desk.life_seconds)
