"""HTTP routes: where environments can run. Users see regions, administrators the clusters behind them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from libs.common.http.auth import CurrentAdmin, CurrentUser
from libs.common.http.problems import responses
from libs.common.http.routing import CallerFirstRoute
from services.orchestrator.domain.clusters import default_of
from services.orchestrator.schemas import Availability, Cluster, ClusterCreate, ClusterUpdate, Region
from services.orchestrator.service.clusters import ClusterAdministration
from services.orchestrator.service.registry import ClusterRegistry

router = APIRouter(route_class=CallerFirstRoute, prefix="/api/v1", responses=responses(401))


async def _administration(request: Request) -> ClusterAdministration:
    administration: ClusterAdministration = request.app.state.administration
    return administration


async def _registry(request: Request) -> ClusterRegistry:
    registry: ClusterRegistry = request.app.state.registry
    return registry


Administration = Annotated[ClusterAdministration, Depends(_administration)]
Registry = Annotated[ClusterRegistry, Depends(_registry)]
Name = Annotated[str, Path(max_length=64, description="The cluster's name, which is also its id")]


@router.get("/regions", summary="Where environments can run", tags=["regions"])
async def get_regions(_: CurrentUser, registry: Registry) -> list[Region]:
    """The regions that a new environment may name. One is available when a cluster in it takes environments now."""
    clusters = registry.clusters
    default = default_of(clusters)
    regions: dict[str, Region] = {}
    for cluster in sorted(clusters, key=lambda cluster: cluster.region):
        region = regions.setdefault(
            cluster.region, Region(name=cluster.region, status=Availability.UNAVAILABLE, is_default=False)
        )
        if cluster.takes_new:
            region.status = Availability.AVAILABLE
        if default is not None and cluster.id == default.id:
            region.is_default = True
    return list(regions.values())


@router.get("/clusters", summary="The clusters behind the regions", tags=["clusters"], responses=responses(403))
async def get_clusters(_: CurrentAdmin, administration: Administration) -> list[Cluster]:
    """Admins only."""
    return [Cluster.of(view) for view in await administration.listed()]


@router.post(
    "/clusters",
    status_code=201,
    summary="Register a cluster",
    tags=["clusters"],
    responses=responses(403, 409, 422),
)
async def create_cluster(_: CurrentAdmin, administration: Administration, body: ClusterCreate) -> Cluster:
    """Admins only. The credentials are tried out first, and stored encrypted."""
    return Cluster.of(await administration.add(body.to_domain(), verify=body.verify))


@router.get("/clusters/{name}", summary="Get a cluster", tags=["clusters"], responses=responses(403, 404))
async def get_cluster(_: CurrentAdmin, administration: Administration, name: Name) -> Cluster:
    """Admins only."""
    return Cluster.of(await administration.get(name))


@router.put(
    "/clusters/{name}",
    summary="Change a cluster (as PATCH)",
    tags=["clusters"],
    responses=responses(403, 404, 409, 422),
)
@router.patch(
    "/clusters/{name}", summary="Change a cluster", tags=["clusters"], responses=responses(403, 404, 409, 422)
)
async def update_cluster(_: CurrentAdmin, administration: Administration, name: Name, body: ClusterUpdate) -> Cluster:
    """Admins only. New credentials are used within seconds; terminals that are open go on."""
    connection = None if body.kubeconfig is None else body.connection(body.kubeconfig)
    view = await administration.update(
        name, body.to_domain(), connection=connection, terminal=body.terminal_connection(), verify=body.verify
    )
    return Cluster.of(view)


@router.delete(
    "/clusters/{name}",
    status_code=204,
    summary="Remove a cluster",
    tags=["clusters"],
    responses=responses(403, 404, 409),
)
async def delete_cluster(
    _: CurrentAdmin,
    administration: Administration,
    name: Name,
    force: Annotated[bool, Query(description="Also when environments live there: they are lost")] = False,
) -> Response:
    """Admins only. Nothing is deleted in the cluster itself."""
    await administration.remove(name, force=force)
    return Response(status_code=204)


@router.post("/clusters/{name}/drain", summary="Drain a cluster", tags=["clusters"], responses=responses(403, 404))
async def drain_cluster(_: CurrentAdmin, administration: Administration, name: Name) -> Cluster:
    """Admins only. It gets no new environments; those it has go on, and can be started and stopped."""
    return Cluster.of(await administration.drain(name))


@router.get(
    "/clusters/{name}/health", summary="Ask a cluster how it is", tags=["clusters"], responses=responses(403, 404)
)
async def get_cluster_health(
    _: CurrentAdmin, administration: Administration, registry: Registry, name: Name
) -> Cluster:
    """Admins only. Asked now, not remembered; answers within some ten seconds."""
    view = await administration.get(name)
    # It may be new, or have new credentials.
    await registry.refresh()
    result = await registry.check(view.cluster)
    return Cluster.of((await administration.get(name)).answered(result))
