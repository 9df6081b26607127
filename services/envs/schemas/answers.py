"""What the API gives about environments."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from libs.common.contracts.environments import EnvironmentStatus, Resources
from services.envs.entities import Environment, Usage

_IDLE = frozenset({EnvironmentStatus.STOPPED, EnvironmentStatus.ERROR, EnvironmentStatus.CREATING})


class EnvironmentResponse(BaseModel):
    """An environment. `*_usage` are percent of its limits; of cpu and memory 0 while it does not run."""

    id: str
    user_id: str
    name: str
    description: str | None
    template: str
    status: EnvironmentStatus
    status_reason: str | None = Field(description="Why it is in status error, or what holds it up, in words to act on")
    resources: Resources
    region: str | None
    external_url: str | None
    web_port: int | None
    created_at: datetime
    updated_at: datetime
    last_accessed: datetime | None = Field(description="When a terminal was last opened")
    cpu_usage: float
    memory_usage: float
    storage_usage: float
    installation_completed: bool = Field(description="It has been running at least once")

    @classmethod
    def of(cls, environment: Environment) -> Self:
        """As clients see it."""
        cpu, memory, storage = usage_percent(environment)
        return cls(
            id=environment.id,
            user_id=environment.user_id,
            name=environment.name,
            description=environment.description,
            template=environment.template,
            status=environment.status,
            status_reason=environment.status_reason,
            resources=environment.resources,
            region=environment.region,
            external_url=None,
            web_port=environment.web_port,
            created_at=environment.created_at,
            updated_at=environment.updated_at,
            last_accessed=environment.last_accessed,
            cpu_usage=cpu,
            memory_usage=memory,
            storage_usage=storage,
            installation_completed=environment.installation_completed,
        )


class CommandResponse(BaseModel):
    """A command was accepted; `status` is what the environment is now."""

    message: str
    status: EnvironmentStatus


class MetricsPoint(BaseModel):
    """One sample: percent of the limits, and absolute."""

    timestamp: datetime
    cpu_usage: float
    memory_usage: float
    storage_usage: float
    cpu_millis: float
    memory_bytes: int
    storage_bytes: int

    @classmethod
    def of(cls, usage: Usage, limits: Resources) -> Self:
        """Against the limits the environment has now."""
        cpu, memory, storage = _percents(usage, limits)
        return cls(
            timestamp=usage.sampled_at,
            cpu_usage=cpu,
            memory_usage=memory,
            storage_usage=storage,
            cpu_millis=usage.cpu_millis,
            memory_bytes=usage.memory_bytes,
            storage_bytes=usage.storage_bytes,
        )


class MetricsResponse(BaseModel):
    """The latest sample and its history. Everything is 0 and `timestamp` null before the first sample."""

    environment_id: str
    cpu_usage: float
    memory_usage: float
    storage_usage: float
    cpu_millis: float
    memory_bytes: int
    storage_bytes: int
    timestamp: datetime | None
    metrics: list[MetricsPoint]

    @classmethod
    def of(cls, environment: Environment, history: list[Usage]) -> Self:
        """As clients see it."""
        cpu, memory, storage = usage_percent(environment)
        usage = environment.usage
        idle = usage is None or environment.status in _IDLE
        return cls(
            environment_id=environment.id,
            cpu_usage=cpu,
            memory_usage=memory,
            storage_usage=storage,
            cpu_millis=0.0 if usage is None or idle else usage.cpu_millis,
            memory_bytes=0 if usage is None or idle else usage.memory_bytes,
            storage_bytes=usage.storage_bytes if usage is not None else 0,
            timestamp=usage.sampled_at if usage is not None else None,
            metrics=[MetricsPoint.of(point, environment.resources) for point in history],
        )


class EnvironmentEvent(BaseModel):
    """One event of an environment's story, see docs/asyncapi for the data of each type."""

    sequence: int
    id: str
    type: str
    source: str
    time: datetime
    actor: str | None
    correlation_id: str | None
    causation_id: str | None
    data: dict[str, Any]


class EventsResponse(BaseModel):
    """A page of a story, in order. `next_cursor` is null at the end."""

    events: list[EnvironmentEvent]
    next_cursor: str | None


class MessageResponse(BaseModel):
    """It is done."""

    message: str


def usage_percent(environment: Environment) -> tuple[float, float, float]:
    """CPU, memory and storage in percent of the limits, by the latest sample."""
    if environment.usage is None:
        return 0.0, 0.0, 0.0
    cpu, memory, storage = _percents(environment.usage, environment.resources)
    return (0.0, 0.0, storage) if environment.status in _IDLE else (cpu, memory, storage)


def _percents(usage: Usage, limits: Resources) -> tuple[float, float, float]:
    return (
        _percent(usage.cpu_millis, limits.cpu_millis),
        _percent(usage.memory_bytes, limits.memory_bytes),
        _percent(usage.storage_bytes, limits.storage_bytes),
    )


def _percent(value: float, limit: float) -> float:
    """A few kilobytes of many gigabytes must not round to nothing."""
    return round(value * 100 / limit, 6)
