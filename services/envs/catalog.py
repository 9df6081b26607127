"""Templates: what an environment is made from, and the five that every installation has. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from libs.common.contracts.environments import PullPolicy, Resources

ALIASES = {"node": "nodejs", "go": "golang"}
"""Names that clients of the original use, by the name they stand for."""

ALL_TEMPLATES = "*"
"""In settings: every template that is not named there."""


class TemplateCategory(StrEnum):
    """What kind of template it is."""

    PROGRAMMING_LANGUAGE = "programming_language"
    FRAMEWORK = "framework"
    DATABASE = "database"
    DEVOPS = "devops"
    OPERATING_SYSTEM = "operating_system"


class TemplateStatus(StrEnum):
    """A deprecated template is hidden from users; environments made from it go on."""

    ACTIVE = "active"
    BETA = "beta"
    DEPRECATED = "deprecated"


@dataclass(frozen=True, slots=True)
class Template:
    """`startup_commands` run, joined by `&&`, at every start of an environment that names no command of its own.

    `image_pull_policy` None leaves it to the cluster that the environment runs in.
    """

    name: str
    display_name: str
    description: str
    category: TemplateCategory
    docker_image: str
    created_at: datetime
    updated_at: datetime
    tags: tuple[str, ...] = ()
    default_port: int | None = 8080
    default_resources: Resources = field(default_factory=lambda: Resources(cpu="500m", memory="1Gi", storage="5Gi"))
    environment_variables: dict[str, str] = field(default_factory=dict)
    startup_commands: tuple[str, ...] = ()
    status: TemplateStatus = TemplateStatus.ACTIVE
    version: str = "1.0.0"
    documentation_url: str | None = None
    icon_url: str | None = None
    image_pull_policy: PullPolicy | None = None

    @property
    def startup_command(self) -> str | None:
        """All start-up commands as one."""
        return " && ".join(self.startup_commands) or None


def default_templates(image_prefix: str, now: datetime) -> list[Template]:
    """The five templates, with images `<image_prefix>/<name>:latest`."""
    language = TemplateCategory.PROGRAMMING_LANGUAGE
    described = (
        ("python", "Python", "Python 3 with pip and venv", language, ("python", "pip", "venv"), 8000),
        ("nodejs", "Node.js", "Node.js with npm", language, ("javascript", "typescript", "npm"), 3000),
        ("golang", "Go", "The Go toolchain", language, ("go", "golang"), 8080),
        ("rust", "Rust", "Rust with cargo", language, ("rust", "cargo"), 8080),
        ("ubuntu", "Ubuntu", "A plain Ubuntu to build on", TemplateCategory.OPERATING_SYSTEM, ("linux", "shell"), 8080),
    )
    return [
        Template(
            name=name,
            display_name=display_name,
            description=description,
            category=category,
            docker_image=f"{image_prefix}/{name}:latest",
            created_at=now,
            updated_at=now,
            tags=tags,
            default_port=port,
            environment_variables=dict(_VARIABLES.get(name, {})),
            documentation_url=_DOCUMENTATION[name],
        )
        for name, display_name, description, category, tags, port in described
    ]


_VARIABLES = {
    # Output shows in the logs when it is written, not when a buffer is full.
    "python": {"PYTHONUNBUFFERED": "1"},
    "nodejs": {"NODE_ENV": "development"},
}
_DOCUMENTATION = {
    "python": "https://docs.python.org/3/",
    "nodejs": "https://nodejs.org/docs/",
    "golang": "https://go.dev/doc/",
    "rust": "https://doc.rust-lang.org/",
    "ubuntu": "https://help.ubuntu.com/",
}
