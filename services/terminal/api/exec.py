"""POST /api/v1/environments/{environment_id}/exec: one command without a terminal."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from libs.common.http.auth import CurrentUser
from libs.common.http.problems import responses
from libs.common.http.routing import CallerFirstRoute
from services.terminal.api.file_models import ExecAnswer, ExecRequest
from services.terminal.api.state import terminal_state
from services.terminal.domain import Caller, SocketKind
from services.terminal.service.commands import Outcome

router = APIRouter(route_class=CallerFirstRoute, prefix="/api/v1/environments", tags=["files"])


@router.post(
    "/{environment_id}/exec",
    summary="Run one command in an environment",
    response_model=ExecAnswer,
    responses=responses(401, 403, 404, 409),
)
async def run_command(
    environment_id: str, body: ExecRequest, user: CurrentUser, request: Request
) -> ExecAnswer | Response:
    """For any user, in an environment of their own that runs; an API key needs the scope `terminal`.

    When its time is up, or the caller has gone, the command is ended with everything that it has started in its
    session; so is what it leaves behind in the background. Of stdout and stderr the first MiB each is given back.
    """
    state = terminal_state(request)
    caller = Caller.of(user, SocketKind.TERMINAL)
    environment = await state.access.to_running(caller, environment_id)
    running = asyncio.create_task(state.commands.run(caller, environment, body.to_domain()))
    outcome = await _unless_gone(request, running)
    # Nobody is there to read this status; the access log is.
    return Response(status_code=499) if outcome is None else ExecAnswer.of(outcome, body.encoding)


async def _unless_gone(request: Request, running: asyncio.Task[Outcome]) -> Outcome | None:
    """The outcome. When the client has gone it is ended instead, and None returned."""
    leaving = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return running.result() if running.done() else None
    finally:
        leaving.cancel()
        running.cancel()
        await asyncio.gather(running, leaving, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
