"""What the API takes and gives about templates."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field

from libs.common.contracts.environments import PullPolicy, Resources
from services.envs import rules
from services.envs.catalog import Template, TemplateCategory, TemplateStatus
from services.envs.schemas.fields import Image, Name, Request, StartupCommand, Text


class TemplateFields(Request):
    """What admins may change of a template; null or left out: unchanged."""

    display_name: Annotated[Text, Field(min_length=1, max_length=100)] | None = None
    description: Annotated[Text, Field(min_length=1, max_length=500)] | None = None
    category: TemplateCategory | None = None
    tags: Annotated[list[Annotated[Text, Field(max_length=50)]], Field(max_length=50)] | None = None
    docker_image: Image | None = None
    image_pull_policy: Literal[PullPolicy, "default"] | None = Field(
        default=None, description="When nodes fetch the image; default: what the cluster does otherwise"
    )
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
        if given.get("image_pull_policy") == "default":
            given["image_pull_policy"] = None
        return given


class TemplateCreate(TemplateFields):
    """A new template. Its name cannot be changed later."""

    name: Name
    display_name: Annotated[Text, Field(min_length=1, max_length=100)]
    description: Annotated[Text, Field(min_length=1, max_length=500)]
    category: TemplateCategory
    docker_image: Image

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
    image_pull_policy: PullPolicy | None
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
