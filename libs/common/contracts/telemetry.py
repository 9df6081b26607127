"""Samples that travel on core NATS, never in the event stream: losing one costs a point on a chart."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

USAGE_SUBJECTS = "telemetry.env.*.usage"
SIGHTING_SUBJECTS = "telemetry.user.*.seen"


def usage_subject(environment_id: str) -> str:
    """Where the orchestrator publishes `UsageSample` of one environment."""
    return f"telemetry.env.{environment_id}.usage"


class UsageSample(BaseModel):
    """What an environment uses now, absolute: cpu in thousandths of a core, the others in bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    environment_id: str
    sampled_at: datetime
    cpu_millis: float
    memory_bytes: int
    storage_bytes: int


def sighting_subject(user_id: str) -> str:
    """Where services publish `Sighting` of one user's sessions and keys."""
    return f"telemetry.user.{user_id}.seen"


class Sighting(BaseModel):
    """A session or an API key was used, from this network address."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    user_id: str
    kind: Literal["session", "api_key"]
    id: str
    at: datetime
    address: str | None = None
