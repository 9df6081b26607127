"""What a plan allows: how many environments, and how big. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass

from libs.common.contracts.environments import Resources
from libs.common.contracts.identity import PLAN_LIMITS, Plan
from services.envs.errors import (
    AccountInactiveError,
    DuplicateNameError,
    EmailNotVerifiedError,
    QuotaExceededError,
    ResourcesExceedPlanError,
)

_KINDS = (("CPU", "cpu", "cpu_millis"), ("memory", "memory", "memory_bytes"), ("storage", "storage", "storage_bytes"))


@dataclass(frozen=True, slots=True)
class Account:
    """What this service knows of a user. `version` is that of the user's own document in auth.

    A deleted account is not active either.
    """

    user_id: str
    plan: Plan
    is_active: bool
    is_verified: bool
    is_deleted: bool = False
    version: int = 0

    def require_active(self) -> None:
        """Raises AccountInactiveError."""
        if not self.is_active or self.is_deleted:
            raise AccountInactiveError

    def require_may_create(self, *, verified_only: bool) -> None:
        """Raises AccountInactiveError or EmailNotVerifiedError."""
        self.require_active()
        if verified_only and not self.is_verified:
            raise EmailNotVerifiedError


@dataclass(frozen=True, slots=True)
class Place:
    """One live environment as the quota sees it."""

    slot: int
    name: str


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """What a user asks for, as Kubernetes quantities; None leaves it to the default."""

    cpu: str | None = None
    memory: str | None = None
    storage: str | None = None


def free_slot(plan: Plan, name: str, taken: Collection[Place]) -> int:
    """A free slot. Raises DuplicateNameError or QuotaExceededError.

    The unique index of (user, slot) makes the quota atomic: there are no more slots than the plan allows. Names spread
    over them, so that many creates at once seldom want the same. But a user with places beyond a smaller plan gets the
    lowest one, always, because there two creates that see the same places must collide.
    """
    if any(place.name == name for place in taken):
        raise DuplicateNameError
    limit = PLAN_LIMITS[plan].environments
    if len(taken) >= limit:
        raise QuotaExceededError(
            f"Your {plan} plan allows {limit} {'environment' if limit == 1 else 'environments'}; "
            "delete one or choose a larger plan"
        )
    slots = {place.slot for place in taken}
    free = [slot for slot in range(limit) if slot not in slots]
    is_beyond = any(slot >= limit for slot in slots)
    return free[0 if is_beyond else zlib.crc32(name.encode()) % len(free)]


def resolve_resources(requested: ResourceRequest | None, default: Resources, plan: Plan) -> Resources:
    """What is asked for, else the default, cut to the plan. Raises ResourcesExceedPlanError."""
    allowed = Resources.of_plan(PLAN_LIMITS[plan])
    wanted = requested or ResourceRequest()
    chosen: dict[str, str] = {}
    for label, name, measure in _KINDS:
        asked: str | None = getattr(wanted, name)
        limit: str = getattr(allowed, name)
        value = asked or getattr(default, name)
        if getattr(allowed.model_copy(update={name: value}), measure) > getattr(allowed, measure):
            if asked is not None:
                raise ResourcesExceedPlanError(
                    f"{asked} of {label} is more than the {limit} that your {plan} plan allows per environment"
                )
            value = limit
        chosen[name] = value
    return Resources(**chosen)


def cut_to_plan(resources: Resources, plan: Plan) -> Resources:
    """What an environment that was made under a larger plan may be started with."""
    return resolve_resources(None, resources, plan)
