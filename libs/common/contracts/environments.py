"""The environment lifecycle as other services see it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, field_validator

from libs.common.contracts.identity import PlanLimits
from libs.common.contracts.quantities import byte_count, cpu_millis


class EnvironmentStatus(StrEnum):
    """The status of an environment, see the transition table in services/envs/domain.py."""

    CREATING = "creating"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    STARTING = "starting"
    RESTARTING = "restarting"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    ERROR = "error"


class DesiredState(StrEnum):
    """What the user wants of an environment."""

    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


PullPolicy = Literal["Always", "IfNotPresent", "Never"]
"""When a node fetches an image, as Kubernetes names it."""


class Resources(BaseModel):
    """Limits of one environment, as Kubernetes quantities: cpu "500m", memory "1Gi", storage "5Gi"."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cpu: str
    memory: str
    storage: str

    @field_validator("cpu")
    @classmethod
    def _valid_cpu(cls, value: str) -> str:
        cpu_millis(value)
        return value

    @field_validator("memory", "storage")
    @classmethod
    def _valid_bytes(cls, value: str) -> str:
        byte_count(value)
        return value

    @classmethod
    def of_plan(cls, limits: PlanLimits) -> Self:
        """The most a plan allows."""
        return cls(cpu=limits.cpu, memory=limits.memory, storage=limits.storage)

    @property
    def cpu_millis(self) -> int:
        """Thousandths of a core."""
        return cpu_millis(self.cpu)

    @property
    def memory_bytes(self) -> int:
        """Bytes."""
        return byte_count(self.memory)

    @property
    def storage_bytes(self) -> int:
        """Bytes."""
        return byte_count(self.storage)
