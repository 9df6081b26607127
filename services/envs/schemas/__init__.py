"""What the API takes and gives. Fields and names are those of the original's clients."""

from __future__ import annotations

from services.envs.schemas.answers import (
    CommandResponse,
    EnvironmentEvent,
    EnvironmentResponse,
    EventsResponse,
    MessageResponse,
    MetricsResponse,
)
from services.envs.schemas.requests import EnvironmentCreate, EnvironmentUpdate
from services.envs.schemas.templates import TemplateCreate, TemplateFields, TemplateResponse

__all__ = [
    "CommandResponse",
    "EnvironmentCreate",
    "EnvironmentEvent",
    "EnvironmentResponse",
    "EnvironmentUpdate",
    "EventsResponse",
    "MessageResponse",
    "MetricsResponse",
    "TemplateCreate",
    "TemplateFields",
    "TemplateResponse",
]
