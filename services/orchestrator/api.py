"""HTTP routes: where environments can run."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from libs.common.http.auth import current_admin, current_principal
from libs.common.http.problems import responses
from services.orchestrator.schemas import Availability, Cluster, Region
from services.orchestrator.service.readiness import RuntimeReadiness
from services.orchestrator.settings import OrchestratorSettings

# There is one cluster; events and workspaces name it so.
CLUSTER_ID = "default"

router = APIRouter(prefix="/api/v1", tags=["regions"])


async def _availability(request: Request) -> Availability:
    readiness: RuntimeReadiness = request.app.state.readiness
    return Availability.AVAILABLE if await readiness.is_ready() else Availability.UNAVAILABLE


async def _settings(request: Request) -> OrchestratorSettings:
    settings: OrchestratorSettings = request.app.state.platform.settings
    return settings


RuntimeAvailability = Annotated[Availability, Depends(_availability)]
Settings = Annotated[OrchestratorSettings, Depends(_settings)]


@router.get(
    "/regions",
    summary="Where environments can run",
    dependencies=[Depends(current_principal)],
    responses=responses(401),
)
async def get_regions(settings: Settings, status: RuntimeAvailability) -> list[Region]:
    """The regions that a new environment may name."""
    return [Region(name=settings.region_name, status=status, is_default=True)]


@router.get(
    "/clusters",
    summary="The clusters behind the regions",
    dependencies=[Depends(current_admin)],
    responses=responses(401, 403),
)
async def get_clusters(settings: Settings, status: RuntimeAvailability) -> list[Cluster]:
    """For administrators."""
    return [
        Cluster(
            id=CLUSTER_ID,
            name=settings.region_name,
            region=settings.region_name,
            runtime=settings.runtime,
            status=status,
        )
    ]
