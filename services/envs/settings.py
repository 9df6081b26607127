"""Settings of the envs service."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from libs.common.contracts.environments import PullPolicy
from libs.common.settings import CommonSettings
from services.envs import rules
from services.envs.catalog import ALIASES, ALL_TEMPLATES

_POLICIES: tuple[str, ...] = get_args(PullPolicy)
_FORMS = {
    "template_images": "TEMPLATE=IMAGE, several with commas between, e.g. python=registry.example.org/py:3.12",
    "template_pull_policy": f"one of {', '.join(_POLICIES)} for all, or TEMPLATE=POLICY, e.g. python=Never",
}


class EnvsSettings(CommonSettings):
    """What only this service needs.

    `template_images` and `template_pull_policy` are by a template's own name; ALL_TEMPLATES stands for those not named.
    """

    require_email_verification: bool = Field(
        default=False, description="Only users with a verified email address may create environments"
    )
    template_image_prefix: str = Field(
        default="devpocket",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}$",
        description="Registry path of the seeded templates' images: <prefix>/<name>:latest",
    )
    template_images: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="Images of single templates, at every start: python=registry.example.org/py:3,ubuntu=ubuntu:24.04",
    )
    template_pull_policy: Annotated[dict[str, PullPolicy], NoDecode] = Field(
        default_factory=dict,
        description="When nodes fetch images, at every start: Never for all, or python=Never,ubuntu=IfNotPresent",
    )

    environment_overdue_seconds: float = Field(
        default=420.0,
        gt=0,
        description="What is created, started, stopped or deleted for longer is counted as overdue in the metrics; "
        "above the orchestrator's deadlines, which are 300 seconds at most",
    )

    @field_validator("template_images", "template_pull_policy", mode="before")
    @classmethod
    def _by_template(cls, value: object, info: ValidationInfo) -> object:
        """What an operator writes, by template."""
        if not isinstance(value, str):
            return value
        field = str(info.field_name)
        if field == "template_pull_policy" and value.strip() in _POLICIES:
            return {ALL_TEMPLATES: value.strip()}
        found: dict[str, str] = {}
        for pair in filter(None, (part.strip() for part in value.split(","))):
            name, separator, given = (part.strip() for part in pair.partition("="))
            if not name or not separator or not given:
                raise ValueError(f"{pair[:80]!r} says nothing of a template: write {_FORMS[field]}")
            name = rules.normalize_name(name)
            name = ALIASES.get(name, name)
            if name in found:
                raise ValueError(f"it names the template '{name}' twice; name each once")
            found[name] = given
        return found

    @field_validator("template_images")
    @classmethod
    def _images(cls, value: dict[str, str]) -> dict[str, str]:
        return {name: rules.check_image(image) for name, image in value.items()}
