"""What users and admins do with templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import structlog

from libs.common.clock import Clock, utc_now
from libs.common.contracts.environments import PullPolicy
from services.envs.catalog import ALIASES, Template, TemplateCategory, TemplateStatus, default_templates
from services.envs.errors import TemplateExistsError, TemplateNotFoundError, UnknownTemplateError
from services.envs.ports import EnvironmentStore, TemplateStore

T = TypeVar("T")

log = structlog.get_logger(__name__)


class TemplateService:
    """The catalogue. `image_prefix` names the registry path of the five that are always there.

    `images` and `pull_policies`, by template, are what the operator's settings say; they overrule what is stored.
    """

    def __init__(
        self,
        store: TemplateStore,
        environments: EnvironmentStore,
        *,
        image_prefix: str,
        images: Mapping[str, str] | None = None,
        pull_policies: Mapping[str, PullPolicy] | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._store = store
        self._environments = environments
        self._image_prefix = image_prefix
        self._images = images or {}
        self._pull_policies = pull_policies or {}
        self._clock = clock

    async def usable(self, name: str) -> Template:
        """What a new environment can be made from. Raises UnknownTemplateError, which lists what there is."""
        template = await self.find(name)
        if template is not None and template.status is not TemplateStatus.DEPRECATED:
            return template
        names = [known.name for known in await self._store.all() if known.status is not TemplateStatus.DEPRECATED]
        raise UnknownTemplateError(f"Unknown template '{name[:50]}'; choose one of {', '.join(names)}")

    async def find(self, name: str) -> Template | None:
        """By name or alias, deprecated ones too."""
        name = name.strip().lower()
        return await self._store.get(ALIASES.get(name, name))

    async def listed(
        self, *, category: TemplateCategory | None, status: TemplateStatus | None, sees_deprecated: bool
    ) -> list[tuple[Template, int]]:
        """Templates with their number of live environments."""
        found = [
            template
            for template in await self._store.all()
            if category in {None, template.category}
            and status in {None, template.status}
            and (sees_deprecated or template.status is not TemplateStatus.DEPRECATED)
        ]
        counts = await self._environments.count_by_template([template.name for template in found])
        return [(template, counts[template.name]) for template in found]

    async def get(self, name: str, *, sees_deprecated: bool) -> tuple[Template, int]:
        """One template with its number of live environments. Raises TemplateNotFoundError."""
        template = await self.find(name)
        if template is None or (template.status is TemplateStatus.DEPRECATED and not sees_deprecated):
            raise TemplateNotFoundError
        counts = await self._environments.count_by_template([template.name])
        return template, counts[template.name]

    async def create(self, template: Template) -> Template:
        """Raises TemplateExistsError."""
        if template.name in ALIASES or not await self._store.insert(template):
            raise TemplateExistsError(template.name)
        return template

    async def change(self, name: str, values: dict[str, object]) -> tuple[Template, int]:
        """Set some fields; new environments get them. Raises TemplateNotFoundError."""
        template, count = await self.get(name, sees_deprecated=True)
        changed = replace(template, **values, updated_at=self._clock())  # type: ignore[arg-type]
        if not await self._store.replace(changed):
            raise TemplateNotFoundError
        return changed, count

    async def deprecate(self, name: str) -> None:
        """Hide it; environments made from it go on. Raises TemplateNotFoundError."""
        await self.change(name, {"status": TemplateStatus.DEPRECATED})

    async def seed(self, *, force: bool = False) -> list[str]:
        """Add the five that are missing, with `force` put all five back to their first state. Names what it wrote."""
        written: list[str] = []
        for template in default_templates(self._image_prefix, self._clock()):
            missing = await self._store.insert(template)
            if missing or (force and await self._store.replace(template)):
                written += [template.name]
        return written

    async def apply_settings(self) -> list[str]:
        """Bring templates up to date with the settings. Names what it changed."""
        changed: list[str] = []
        named = [ALIASES.get(name, name) for name in {**self._images, **self._pull_policies}]
        for name in dict.fromkeys(named):
            template = await self._store.get(name)
            if template is None:
                # It may be added later, and is brought up to date with the start after that.
                known = ", ".join(template.name for template in await self._store.all())
                log.warning("the settings name a template that does not exist", template=name, there_are=known)
                continue
            wanted = replace(
                template,
                docker_image=_of(self._images, name) or template.docker_image,
                image_pull_policy=_of(self._pull_policies, name) or template.image_pull_policy,
            )
            if wanted != template and await self._store.replace(replace(wanted, updated_at=self._clock())):
                changed.append(name)
                log.info(
                    "template follows the settings",
                    template=name,
                    image=wanted.docker_image,
                    pull_policy=wanted.image_pull_policy,
                )
        return changed


def _of(named: Mapping[str, T], template: str) -> T | None:
    """What the settings say of a template, by its name or by an alias."""
    return next((value for name, value in named.items() if ALIASES.get(name, name) == template), None)
