"""Settings of the envs service."""

from __future__ import annotations

from pydantic import Field

from libs.common.settings import CommonSettings


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
