"""What users and admins do with templates."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from libs.common.clock import Clock, utc_now
from libs.common.contracts.environments import PullPolicy
from libs.common.costly import CostlyNumbers
from services.envs.catalog import ALIASES, ALL_TEMPLATES, Template, TemplateCategory, TemplateStatus, default_templates
from services.envs.errors import (
    SettingsNameNoTemplateError,
    TemplateExistsError,
    TemplateNotFoundError,
    UnknownTemplateError,
)
from services.envs.ports import EnvironmentStore, TemplateStore

log = structlog.get_logger(__name__)


class TemplateService:
    """The catalogue. `image_prefix` names the registry path of the five that are always there.

    `images` and `pull_policies`, by a template's own name or ALL_TEMPLATES, are what the operator's settings say; they
    overrule what is stored.
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
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """`timer` gives seconds: it says what counting environments costs."""
        self._store = store
        self._counts = CostlyNumbers(environments.count_by_template, timer)
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
        counts = await asyncio.gather(*(self._counts.get(template.name) for template in found))
        return list(zip(found, counts, strict=True))

    async def get(self, name: str, *, sees_deprecated: bool) -> tuple[Template, int]:
        """One template with its number of live environments. Raises TemplateNotFoundError."""
        template = await self.find(name)
        if template is None or (template.status is TemplateStatus.DEPRECATED and not sees_deprecated):
            raise TemplateNotFoundError
        return template, await self._counts.get(template.name)

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
        """Bring templates up to date with the settings. Names what it changed.

        Raises SettingsNameNoTemplateError, and then has changed nothing.
        """
        known = {template.name: template for template in await self._store.all()}
        unknown = sorted({*self._images, *self._pull_policies} - {*known, ALL_TEMPLATES})
        if unknown:
            raise SettingsNameNoTemplateError(unknown, list(known))
        changed: list[str] = []
        for name, template in known.items():
            wanted = replace(
                template,
                docker_image=self._images.get(name, template.docker_image),
                image_pull_policy=self._policy(name) or template.image_pull_policy,
            )
            if wanted != template and await self._store.replace(replace(wanted, updated_at=self._clock())):
                changed.append(name)
                log.info(
                    "template follows the settings",
                    template=name,
                    image=wanted.docker_image,
                    image_before=template.docker_image,
                    pull_policy=wanted.image_pull_policy,
                    pull_policy_before=template.image_pull_policy,
                )
        return changed

    def _policy(self, name: str) -> PullPolicy | None:
        return self._pull_policies.get(name) or self._pull_policies.get(ALL_TEMPLATES)
