"""/api/v1/templates: every signed-in user reads, admins write."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from libs.common.clock import utc_now
from libs.common.http.auth import CurrentAdmin, CurrentUser
from libs.common.http.problems import responses
from libs.common.http.routing import CallerFirstRoute
from services.envs.api.collaborators import Templates
from services.envs.catalog import TemplateCategory, TemplateStatus
from services.envs.schemas import MessageResponse, TemplateCreate, TemplateFields, TemplateResponse

router = APIRouter(
    route_class=CallerFirstRoute, prefix="/api/v1/templates", tags=["templates"], responses=responses(401)
)

TemplateName = Annotated[str, Path(max_length=64, description="Its name, which is also its id")]


@router.get("", summary="List templates")
async def list_templates(
    user: CurrentUser,
    templates: Templates,
    category: TemplateCategory | None = None,
    status: Annotated[TemplateStatus | None, Query()] = None,
) -> list[TemplateResponse]:
    """Deprecated ones are shown to admins only."""
    found = await templates.listed(category=category, status=status, sees_deprecated=user.is_admin)
    return [TemplateResponse.of(template, count) for template, count in found]


@router.get("/{name}", summary="Get a template", responses=responses(404))
async def get_template(user: CurrentUser, templates: Templates, name: TemplateName) -> TemplateResponse:
    """By name or alias."""
    return TemplateResponse.of(*await templates.get(name, sees_deprecated=user.is_admin))


@router.post("", status_code=201, summary="Add a template", responses=responses(400, 403))
async def create_template(_: CurrentAdmin, templates: Templates, body: TemplateCreate) -> TemplateResponse:
    """Admins only."""
    return TemplateResponse.of(await templates.create(body.to_domain(utc_now())), 0)


@router.put("/{name}", summary="Change a template", responses=responses(403, 404))
async def update_template(
    _: CurrentAdmin, templates: Templates, name: TemplateName, body: TemplateFields
) -> TemplateResponse:
    """Admins only. New environments are made from it as it is then; those that exist stay as they are."""
    return TemplateResponse.of(*await templates.change(name, body.values()))


@router.delete("/{name}", summary="Deprecate a template", responses=responses(403, 404))
async def delete_template(_: CurrentAdmin, templates: Templates, name: TemplateName) -> MessageResponse:
    """Admins only. It is hidden from users; environments made from it go on."""
    await templates.deprecate(name)
    return MessageResponse(message="Template deleted successfully")
