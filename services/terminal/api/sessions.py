"""/api/v1/terminal/sessions: any user, their own open shells. An API key needs the scope `terminal` to end one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from libs.common.contracts.identity import Scope
from libs.common.http.auth import CurrentUser, scoped
from libs.common.http.problems import responses
from libs.common.http.routing import CallerFirstRoute
from libs.common.security.principal import Principal
from services.terminal.api.state import terminal_state
from services.terminal.schemas import MessageAnswer, ShellAnswer

router = APIRouter(
    route_class=CallerFirstRoute, prefix="/api/v1/terminal/sessions", tags=["terminal"], responses=responses(401)
)

SessionId = Annotated[str, Path(max_length=64)]
EnvironmentId = Annotated[str | None, Query(max_length=64, description="Only those in this environment")]
TerminalUser = Annotated[Principal, Depends(scoped(Scope.TERMINAL))]


@router.get("", summary="List your open shells")
async def list_sessions(user: CurrentUser, request: Request, environment_id: EnvironmentId = None) -> list[ShellAnswer]:
    """The newest first, whether somebody is connected or not. With its `id`, a terminal goes on with one."""
    shells = await terminal_state(request).shells.list(user.user_id, environment_id)
    return [ShellAnswer.of(shell) for shell in shells]


@router.get("/{terminal_session_id}", summary="Get an open shell", responses=responses(404))
async def get_session(user: CurrentUser, request: Request, terminal_session_id: SessionId) -> ShellAnswer:
    """One of your own that has not ended."""
    return ShellAnswer.of(await terminal_state(request).shells.get(user.user_id, terminal_session_id))


@router.delete("/{terminal_session_id}", summary="End a shell", responses=responses(403, 404, 503))
async def end_session(user: TerminalUser, request: Request, terminal_session_id: SessionId) -> MessageAnswer:
    """The shell ends with everything that it started, and whoever is connected to it is told."""
    await terminal_state(request).shells.close(user.user_id, terminal_session_id)
    return MessageAnswer(message="The terminal session is closed")
