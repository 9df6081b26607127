"""/api/v1/environments: any user, each their own. An API key needs the scope `environments` for more than to look."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request, Response

from libs.common.contracts.environments import EnvironmentStatus
from libs.common.http.auth import CurrentUser, EnvironmentsUser
from libs.common.http.paging import LINK_TO_NEXT
from libs.common.http.problems import responses
from libs.common.http.routing import CallerFirstRoute
from libs.common.telemetry import about_environment
from services.envs.api.collaborators import Environments, UsageOf
from services.envs.api.cursors import ENVIRONMENT_ID, decode_cursor, encode_cursor
from services.envs.entities import Command
from services.envs.schemas import (
    CommandResponse,
    EnvironmentCreate,
    EnvironmentResponse,
    EnvironmentUpdate,
    MetricsResponse,
)

router = APIRouter(
    route_class=CallerFirstRoute, prefix="/api/v1/environments", tags=["environments"], responses=responses(401)
)

EnvironmentId = Annotated[str, Path(max_length=64)]
_MESSAGES = {
    Command.START: "Environment started successfully",
    Command.STOP: "Environment stopped successfully",
    Command.RESTART: "Environment restarted successfully",
    Command.DELETE: "Environment deletion started",
}


@router.post("", status_code=201, summary="Create an environment", responses=responses(400, 403, 409))
async def create_environment(
    user: EnvironmentsUser, environments: Environments, body: EnvironmentCreate
) -> EnvironmentResponse:
    """It is being created when this answers: follow its status with GET /api/v1/events."""
    created = await environments.create(user, body.to_domain())
    about_environment(created.id)
    return EnvironmentResponse.of(created)


@router.get("", summary="List your environments", responses=LINK_TO_NEXT)
async def list_environments(  # noqa: PLR0917 - FastAPI passes arguments by name
    user: CurrentUser,
    environments: Environments,
    request: Request,
    response: Response,
    status_filter: EnvironmentStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Annotated[str | None, Query(description="From the Link header of the page before")] = None,
) -> list[EnvironmentResponse]:
    """Newest first."""
    before = decode_cursor(cursor, ENVIRONMENT_ID)
    page, next_before = await environments.page(user, status=status_filter, limit=limit, before=before)
    if next_before is not None:
        query = {"limit": limit, "cursor": encode_cursor(next_before)}
        if status_filter is not None:
            query["status_filter"] = status_filter.value
        response.headers["Link"] = f'<{request.url.path}?{urlencode(query)}>; rel="next"'
    return [EnvironmentResponse.of(environment) for environment in page]


@router.get("/{environment_id}", summary="Get an environment", responses=responses(404))
async def get_environment(
    user: CurrentUser, environments: Environments, environment_id: EnvironmentId
) -> EnvironmentResponse:
    """One of your own."""
    return EnvironmentResponse.of(await environments.get(user, environment_id))


@router.put("/{environment_id}", summary="Update an environment (as PATCH)", responses=responses(400, 403, 404, 409))
@router.patch("/{environment_id}", summary="Update an environment", responses=responses(400, 403, 404, 409))
async def update_environment(
    user: EnvironmentsUser, environments: Environments, environment_id: EnvironmentId, body: EnvironmentUpdate
) -> EnvironmentResponse:
    """Takes effect at the next start. What is null or left out stays as it is; an empty text clears."""
    return EnvironmentResponse.of(await environments.update(user, environment_id, body.to_domain()))


@router.delete("/{environment_id}", summary="Delete an environment", responses=responses(403, 404))
async def delete_environment(
    user: EnvironmentsUser, environments: Environments, environment_id: EnvironmentId
) -> CommandResponse:
    """With its workspace, for good. Always allowed, also twice."""
    return await _command(user, environments, environment_id, Command.DELETE)


@router.post("/{environment_id}/start", summary="Start an environment", responses=responses(403, 404, 409))
async def start_environment(
    user: EnvironmentsUser, environments: Environments, environment_id: EnvironmentId
) -> CommandResponse:
    """A stopped or failed one, while the plan has room; nothing happens to one that runs."""
    return await _command(user, environments, environment_id, Command.START)


@router.post("/{environment_id}/stop", summary="Stop an environment", responses=responses(403, 404, 409))
async def stop_environment(
    user: EnvironmentsUser, environments: Environments, environment_id: EnvironmentId
) -> CommandResponse:
    """Its workspace is kept; nothing happens to one that is stopped."""
    return await _command(user, environments, environment_id, Command.STOP)


@router.post("/{environment_id}/restart", summary="Restart an environment", responses=responses(403, 404, 409))
async def restart_environment(
    user: EnvironmentsUser, environments: Environments, environment_id: EnvironmentId
) -> CommandResponse:
    """A running or failed one."""
    return await _command(user, environments, environment_id, Command.RESTART)


@router.get("/{environment_id}/metrics", summary="What an environment uses", responses=responses(404))
async def get_metrics(
    user: CurrentUser,
    environments: Environments,
    usage: UsageOf,
    environment_id: EnvironmentId,
    hours: Annotated[int, Query(ge=1, le=168, description="How far back the history goes")] = 24,
) -> MetricsResponse:
    """The latest sample, in percent of the limits and absolute, and a thinned history."""
    environment = await environments.get(user, environment_id)
    return MetricsResponse.of(environment, await usage.history(environment.id, hours))


async def _command(
    user: CurrentUser, environments: Environments, environment_id: str, command: Command
) -> CommandResponse:
    environment = await environments.command(user, environment_id, command)
    return CommandResponse(message=_MESSAGES[command], status=environment.status)
