"""What users do with environments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from libs.common.clock import Clock, utc_now
from libs.common.context import current_cause
from libs.common.contracts.environments import DesiredState, EnvironmentStatus, Resources
from libs.common.contracts.events import Event
from libs.common.contracts.identity import PLAN_LIMITS
from libs.common.ids import new_id
from libs.common.security.principal import Principal
from services.envs import domain
from services.envs.allowance import Verdict, require_room
from services.envs.catalog import Template
from services.envs.entities import Change, Command, Edit, Environment
from services.envs.errors import (
    AccountInactiveError,
    DuplicateNameError,
    EditConflictError,
    EnvironmentNotFoundError,
    QuotaExceededError,
)
from services.envs.plans import Account, ResourceRequest, cut_to_plan, free_slot, resolve_resources
from services.envs.ports import EnvironmentStore, Seal, TakenError
from services.envs.service.accounts import AccountService
from services.envs.service.regions import RegionService
from services.envs.service.templates import TemplateService
from services.envs.service.upholding import carry_out, uphold
from services.envs.service.writes import SOURCE, change_environment

# Every lost race for a slot means that another create won it, so more tries than slots are not needed but for deletes.
_SPARE_TRIES = 10
_STARTS_SOMETHING = frozenset({Command.START, Command.RESTART})


@dataclass(frozen=True, slots=True)
class NewEnvironment:
    """A request for an environment, checked for form. `variables` may hold secrets."""

    name: str
    template: str
    description: str | None = None
    resources: ResourceRequest | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    region: str | None = None
    startup_command: str | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """New values; None leaves a value as it is, an empty text clears it. `variables` replaces all of them."""

    name: str | None = None
    description: str | None = None
    resources: ResourceRequest | None = None
    variables: Mapping[str, str] | None = field(default=None, repr=False)
    startup_command: str | None = None


class EnvironmentService:
    """Creates, shows and changes environments of their owner; everybody else is told that there is none."""

    def __init__(
        self,
        store: EnvironmentStore,
        templates: TemplateService,
        accounts: AccountService,
        regions: RegionService,
        seal: Seal,
        *,
        verified_only: bool,
        clock: Clock = utc_now,
    ) -> None:
        self._store = store
        self._templates = templates
        self._accounts = accounts
        self._regions = regions
        self._seal = seal
        self._verified_only = verified_only
        self._clock = clock

    async def create(self, principal: Principal, wanted: NewEnvironment) -> Environment:
        """A new environment, as far as the plan allows. Raises the errors of plans and templates."""
        account = await self._accounts.of(principal)
        account.require_may_create(verified_only=self._verified_only)
        template = await self._templates.usable(wanted.template)
        await self._regions.require(wanted.region)
        resources = resolve_resources(wanted.resources, template.default_resources, account.plan)
        for _ in range(PLAN_LIMITS[account.plan].environments + _SPARE_TRIES):
            slot = free_slot(account.plan, wanted.name, await self._store.places(account.user_id))
            environment = self._new(account, wanted, template, resources, slot)
            created = domain.created(environment)
            event = Event.new(created, subject=environment.id, source=SOURCE, cause=current_cause())
            try:
                await self._store.insert(environment, [event])
            except TakenError:
                # A write that was repeated after a lost answer is refused by its own first half.
                if await self._store.get(environment.id) is None:
                    continue
            return await self._still_allowed(principal, account, environment)
        raise EditConflictError

    async def _still_allowed(self, principal: Principal, before: Account, created: Environment) -> Environment:
        """Who acted upon a change of the account meanwhile did not see it yet. Raises AccountInactiveError."""
        account = await self._accounts.of(principal)
        if account == before:
            return created
        try:
            account.require_active()
        except AccountInactiveError:
            await carry_out(self._store, Verdict(created.id, Command.DELETE), self._clock)
            raise
        await uphold(self._store, account, self._clock)
        return await self.get(principal, created.id)

    def _new(
        self, account: Account, wanted: NewEnvironment, template: Template, resources: Resources, slot: int
    ) -> Environment:
        now = self._clock()
        return Environment(
            id=new_id(),
            user_id=account.user_id,
            name=wanted.name,
            description=wanted.description or None,
            template=template.name,
            image=template.docker_image,
            image_pull_policy=template.image_pull_policy,
            web_port=template.default_port,
            resources=resources,
            region=wanted.region,
            startup_command=wanted.startup_command or template.startup_command,
            variables_sealed=self._sealed(template, wanted.variables),
            status=EnvironmentStatus.CREATING,
            status_reason=None,
            desired=DesiredState.RUNNING,
            generation=1,
            version=1,
            report_sequence=0,
            slot=slot,
            created_at=now,
            updated_at=now,
        )

    async def get(self, principal: Principal, environment_id: str) -> Environment:
        """One of the caller's live environments. Raises EnvironmentNotFoundError."""
        environment = await self._store.get(environment_id)
        if environment is None or environment.user_id != principal.user_id or not environment.is_live:
            raise EnvironmentNotFoundError
        return environment

    async def page(
        self, principal: Principal, *, status: EnvironmentStatus | None, limit: int, before: str | None
    ) -> tuple[list[Environment], str | None]:
        """The caller's environments, newest first, and the id to go on before, None at the end."""
        found = await self._store.page(principal.user_id, status=status, limit=limit + 1, before=before)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def command(self, principal: Principal, environment_id: str, command: Command) -> Environment:
        """Start, stop, restart or delete. Raises EnvironmentNotFoundError or TransitionForbiddenError.

        Starting may also raise AccountInactiveError or QuotaExceededError.
        """
        if command in _STARTS_SOMETHING:
            return await self._start(principal, environment_id, command)
        return await change_environment(
            self._store,
            lambda: self.get(principal, environment_id),
            lambda environment: domain.decide(environment, command, self._clock()),
        )

    async def _start(self, principal: Principal, environment_id: str, command: Command) -> Environment:
        account = await self._accounts.of(principal)
        account.require_active()
        occupants = await self._store.occupants(account.user_id)

        def decide(current: Environment) -> Change:
            resources = cut_to_plan(current.resources, account.plan)
            change = domain.decide(current, command, self._clock(), resources=resources)
            if not change.is_empty and current.desired is not DesiredState.RUNNING:
                require_room(account.plan, current.id, occupants)
            return change

        started = await change_environment(self._store, lambda: self.get(principal, environment_id), decide)
        # Two starts at once can only be too many for who has more environments than may run.
        if len(occupants) <= PLAN_LIMITS[account.plan].environments and account == await self._accounts.of(principal):
            return started
        return await self._still_started(principal, environment_id)

    async def _still_started(self, principal: Principal, environment_id: str) -> Environment:
        account = await self._accounts.of(principal)
        await uphold(self._store, account, self._clock)
        account.require_active()
        environment = await self.get(principal, environment_id)
        if environment.stop_reason is not None:
            raise QuotaExceededError(environment.stop_reason)
        return environment

    async def update(self, principal: Principal, environment_id: str, wanted: Changes) -> Environment:
        """Change values for the next start. Raises the errors of plans, DuplicateNameError and those of `command`."""
        environment = await self.get(principal, environment_id)
        sealed = None
        if wanted.variables is not None:
            template = await self._templates.find(environment.template)
            sealed = self._sealed(template, wanted.variables)
        account = await self._accounts.of(principal)

        def decide(current: Environment) -> Change:
            resources = None
            if wanted.resources is not None:
                resources = resolve_resources(wanted.resources, current.resources, account.plan)
            edit = Edit(
                name=wanted.name,
                description=wanted.description,
                resources=resources,
                startup_command=wanted.startup_command,
                variables_sealed=sealed,
            )
            return domain.edit(current, edit, self._clock())

        try:
            return await change_environment(self._store, lambda: self.get(principal, environment_id), decide)
        except TakenError as error:
            raise DuplicateNameError from error

    def _sealed(self, template: Template | None, variables: Mapping[str, str]) -> str:
        merged = {**(template.environment_variables if template else {}), **variables}
        return self._seal.seal(json.dumps(merged, separators=(",", ":")))
