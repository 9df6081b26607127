"""What the API takes about environments."""

from __future__ import annotations

from pydantic import Field

from services.envs.plans import ResourceRequest
from services.envs.schemas.fields import (
    Cpu,
    Description,
    Memory,
    Name,
    Region,
    Request,
    StartupCommand,
    Storage,
    Variables,
)
from services.envs.service.environments import Changes, NewEnvironment


class ResourcesRequest(Request):
    """Kubernetes quantities; what is left out comes from the template, cut to the plan."""

    cpu: Cpu | None = None
    memory: Memory | None = None
    storage: Storage | None = None

    def to_domain(self) -> ResourceRequest:
        """As the service takes it."""
        return ResourceRequest(self.cpu, self.memory, self.storage)


class EnvironmentCreate(Request):
    """A new environment."""

    name: Name
    template: str = Field(
        default="ubuntu",
        min_length=1,
        max_length=50,
        description="python, nodejs (or node), golang (or go), rust, ubuntu, or another from GET /api/v1/templates",
    )
    description: Description | None = None
    resources: ResourcesRequest | None = None
    environment_variables: Variables | None = None
    region: Region | None = None
    startup_command: StartupCommand | None = None

    def to_domain(self) -> NewEnvironment:
        """As the service takes it."""
        return NewEnvironment(
            name=self.name,
            template=self.template,
            description=self.description,
            resources=self.resources.to_domain() if self.resources else None,
            variables=self.environment_variables or {},
            region=self.region,
            startup_command=self.startup_command,
        )


class EnvironmentUpdate(Request):
    """New values. Null or left out: unchanged; an empty text clears. Takes effect at the next start."""

    name: Name | None = None
    description: Description | None = None
    resources: ResourcesRequest | None = None
    environment_variables: Variables | None = Field(default=None, description="Replaces all of them")
    startup_command: StartupCommand | None = None

    def to_domain(self) -> Changes:
        """As the service takes it."""
        return Changes(
            name=self.name,
            description=self.description,
            resources=self.resources.to_domain() if self.resources else None,
            variables=self.environment_variables,
            startup_command=self.startup_command,
        )
