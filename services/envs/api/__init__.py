"""HTTP routes: parse, call the service, answer."""

from __future__ import annotations

from services.envs.api.admin_events import router as admin_events
from services.envs.api.environments import router as environments
from services.envs.api.events import router as events
from services.envs.api.templates import router as templates

ROUTERS = (environments, events, templates, admin_events)
