"""Fields that several requests share, each with its rule."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from libs.common.contracts.quantities import byte_count, cpu_millis
from services.envs import rules


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
Region = Annotated[
    str,
    AfterValidator(rules.normalize_region),
    Field(description="One of GET /api/v1/regions; null for any", examples=["eu-west"]),
]
Image = Annotated[
    str,
    AfterValidator(rules.check_image),
    Field(description="An image reference", examples=["registry.example.org/team/python:3.12"]),
]
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
    Field(description="Stored encrypted and never returned"),
]
Cpu = Annotated[str, _at_least(cpu_millis, rules.MIN_CPU_MILLIS, "10m"), Field(examples=["500m"])]
Memory = Annotated[str, _at_least(byte_count, rules.MIN_MEMORY_BYTES, "16Mi"), Field(examples=["1Gi"])]
Storage = Annotated[str, _at_least(byte_count, rules.MIN_STORAGE_BYTES, "1Mi"), Field(examples=["5Gi"])]


class Request(BaseModel):
    """Unknown fields are ignored, so that a newer client can talk to an older server."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)
