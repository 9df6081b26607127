"""Settings of the envs service."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, field_validator
from pydantic_settings import NoDecode

from libs.common.contracts.environments import PullPolicy
from libs.common.settings import CommonSettings
from services.envs.rules import IMAGE

Image = Annotated[str, StringConstraints(pattern=IMAGE)]


class EnvsSettings(CommonSettings):
    """What only this service needs."""

    require_email_verification: bool = Field(
        default=False, description="Only users with a verified email address may create environments"
    )
    template_image_prefix: str = Field(
        default="devpocket",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}$",
        description="Registry path of the seeded templates' images: <prefix>/<name>:latest",
    )
    template_images: Annotated[dict[str, Image], NoDecode] = Field(
        default_factory=dict,
        description="Images of single templates, at every start: python=registry.example.org/py:3,ubuntu=ubuntu:24.04",
    )
    template_pull_policy: Annotated[dict[str, PullPolicy], NoDecode] = Field(
        default_factory=dict,
        description="When nodes fetch the images of single templates, at every start: python=Never,ubuntu=IfNotPresent",
    )

    @field_validator("template_images", "template_pull_policy", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        if any(not name.strip() or not separator or not given.strip() for name, separator, given in pairs):
            raise ValueError("write TEMPLATE=VALUE, several with commas between, e.g. python=registry.example.org/py:3")
        return {name.strip(): given.strip() for name, _, given in pairs}
