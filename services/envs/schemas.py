"""What the API takes and gives. Fields and names are those of the original's clients."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from libs.common.contracts.environments import EnvironmentStatus, Resources
from libs.common.contracts.quantities import byte_count, cpu_millis
from services.envs import rules
from services.envs.catalog import Template, TemplateCategory, TemplateStatus
from services.envs.domain import Environment, Usage
from services.envs.plans import ResourceRequest
from services.envs.service.environments import Changes, NewEnvironment

_IDLE = frozenset({EnvironmentStatus.STOPPED, EnvironmentStatus.ERROR, EnvironmentStatus.CREATING})


def _at_least(measure: Any, minimum: int, shown: str) -> Any:
    def check(quantity: str) -> str:
        if measure(quantity) < minimum:
            raise ValueError(f"Must be at least {shown}")
        return quantity

    return AfterValidator(check)


Name = Annotated[
    str,
    AfterValidator(rules.normalize_name),
    Field(description="A DNS label: letters, digits and hyphens; unique per user", examples=["my-api"]),
]
Text = Annotated[str, AfterValidator(rules.check_text)]
Description = Annotated[Text, Field(max_length=rules.MAX_DESCRIPTION_CHARS)]
StartupCommand = Annotated[
    Text,
    Field(
        max_length=rules.MAX_STARTUP_COMMAND_CHARS,
        description="Runs in /workspace at every start; its output goes to the logs",
    ),
]
Variables = Annotated[
    dict[str, str],
    AfterValidator(rules.check_variables),
    Field(repr=False, description="Stored encrypted and never returned"),
]
Cpu = Annotated[str, _at_least(cpu_millis, rules.MIN_CPU_MILLIS, "10m"), Field(examples=["500m"])]
Memory = Annotated[str, _at_least(byte_count, rules.MIN_MEMORY_BYTES, "16Mi"), Field(examples=["1Gi"])]
Storage = Annotated[str, _at_least(byte_count, rules.MIN_STORAGE_BYTES, "1Mi"), Field(examples=["5Gi"])]


class _Request(BaseModel):
    """Unknown fields are ignored, so that a newer client can talk to an older server."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class ResourcesRequest(_Request):
    """Kubernetes quantities; what is left out comes from the template, cut to the plan."""

    cpu: Cpu | None = None
    memory: Memory | None = None
    storage: Storage | None = None

    def to_domain(self) -> ResourceRequest:
        """As the service takes it."""
        return ResourceRequest(self.cpu, self.memory, self.storage)


class EnvironmentCreate(_Request):
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
    region: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,49}$")] | None = None
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


class EnvironmentUpdate(_Request):
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


class EnvironmentResponse(BaseModel):
    """An environment. `*_usage` are percent of its limits; of cpu and memory 0 while it does not run."""

    id: str
    user_id: str
    name: str
    description: str | None
    template: str
    status: EnvironmentStatus
    status_reason: str | None = Field(description="Why it is in status error, in words to act on")
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


class TemplateFields(_Request):
    """What admins may change of a template; null or left out: unchanged."""

    display_name: Annotated[Text, Field(min_length=1, max_length=100)] | None = None
    description: Annotated[Text, Field(min_length=1, max_length=500)] | None = None
    category: TemplateCategory | None = None
    tags: Annotated[list[Annotated[Text, Field(max_length=50)]], Field(max_length=50)] | None = None
    docker_image: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}$")] | None = None
    default_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    default_resources: Resources | None = None
    environment_variables: Annotated[dict[str, str], AfterValidator(rules.check_variables)] | None = None
    startup_commands: Annotated[list[StartupCommand], Field(max_length=20)] | None = None
    status: TemplateStatus | None = None
    version: Annotated[Text, Field(min_length=1, max_length=50)] | None = None
    documentation_url: Annotated[str, Field(pattern=r"^https?://\S+$", max_length=500)] | None = None
    icon_url: Annotated[str, Field(pattern=r"^https?://\S+$", max_length=500)] | None = None

    def values(self) -> dict[str, Any]:
        """The fields that were given, as the domain holds them."""
        given = {name: getattr(self, name) for name in TemplateFields.model_fields if getattr(self, name) is not None}
        for name in {"tags", "startup_commands"} & given.keys():
            given[name] = tuple(given[name])
        return given


class TemplateCreate(TemplateFields):
    """A new template. Its name cannot be changed later."""

    name: Name
    display_name: Annotated[Text, Field(min_length=1, max_length=100)]
    description: Annotated[Text, Field(min_length=1, max_length=500)]
    category: TemplateCategory
    docker_image: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}$")]

    def to_domain(self, now: datetime) -> Template:
        """As the service takes it."""
        return Template(name=self.name, created_at=now, updated_at=now, **self.values())


class TemplateResponse(BaseModel):
    """A template. `usage_count` is the number of environments that exist now."""

    id: str
    name: str
    display_name: str
    description: str
    category: TemplateCategory
    tags: list[str]
    docker_image: str
    default_port: int | None
    default_resources: Resources
    environment_variables: dict[str, str]
    startup_commands: list[str]
    status: TemplateStatus
    version: str
    created_at: datetime
    updated_at: datetime
    usage_count: int
    documentation_url: str | None
    icon_url: str | None

    @classmethod
    def of(cls, template: Template, usage_count: int) -> Self:
        """As clients see it."""
        values = {name: getattr(template, name) for name in cls.model_fields if name not in {"id", "usage_count"}}
        return cls(id=template.name, usage_count=usage_count, **values)


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
