"""Answers of the orchestrator's API."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, Field


class Availability(StrEnum):
    """Whether workspaces can be started there now."""

    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"


class Region(BaseModel):
    """Where environments can run."""

    name: str = Field(description="What `region` of a new environment may be")
    status: Availability
    is_default: bool = Field(description="Taken when a new environment names none")


class Cluster(BaseModel):
    """One runtime, for operators."""

    id: str
    name: str
    region: str
    runtime: str = Field(description="local or kubernetes")
    status: Availability
