"""What routes call: put into `app.state` by main, taken out here.

These are coroutines because FastAPI runs plain functions in a thread, which costs more than the rest of a request.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from services.envs.ports import EventHistory, LiveEvents
from services.envs.service.environments import EnvironmentService
from services.envs.service.templates import TemplateService
from services.envs.service.usage import UsageService


async def _environments(request: Request) -> EnvironmentService:
    service: EnvironmentService = request.app.state.environments
    return service


async def _templates(request: Request) -> TemplateService:
    service: TemplateService = request.app.state.templates
    return service


async def _usage(request: Request) -> UsageService:
    service: UsageService = request.app.state.usage
    return service


async def _history(request: Request) -> EventHistory:
    history: EventHistory = request.app.state.history
    return history


async def _live(request: Request) -> LiveEvents:
    live: LiveEvents = request.app.state.live
    return live


Environments = Annotated[EnvironmentService, Depends(_environments)]
Templates = Annotated[TemplateService, Depends(_templates)]
UsageOf = Annotated[UsageService, Depends(_usage)]
History = Annotated[EventHistory, Depends(_history)]
Live = Annotated[LiveEvents, Depends(_live)]
