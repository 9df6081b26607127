"""What may run, by its owner's plan and account, and what becomes of the rest. Pure.

- Plan: no more environments may be wanted running than the plan allows to have. A smaller plan deletes nothing: of
  those wanted running the ones used last go on, the others are stopped. While there is no room none is started;
  restarting one that is wanted running takes no further room.
- Resources larger than the plan's stay as long as the workspace runs on. The write that starts or restarts it cuts them
  to the plan, and its wish carries them (`services.envs.plans.cut_to_plan`).
- A deactivated account: what runs is stopped, and kept. Nothing starts by itself when the account is active again.
- A deleted account: everything is deleted. A user's usage history stays until it expires.

Rules are upheld after the fact, again and again: with each event of the account, after a start or a create that may
have met a change or another start, and when a workspace is reported running. So two starts at once may run for a moment
what the plan does not allow, and what a crash leaves behind does not stay.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from libs.common.contracts.environments import DesiredState
from libs.common.contracts.identity import PLAN_LIMITS, Plan
from services.envs.entities import Command
from services.envs.errors import QuotaExceededError
from services.envs.plans import Account

DEACTIVATED = "Stopped because your account was deactivated; start it again once the account is active"


@dataclass(frozen=True, slots=True)
class Occupant:
    """One live environment as these rules see it. `used_at`: its last access, else its creation."""

    id: str
    desired: DesiredState
    used_at: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What has to be wished, and the sentence its owner reads as the reason."""

    environment_id: str
    command: Command
    reason: str | None = None


def verdicts(account: Account, occupants: Collection[Occupant]) -> list[Verdict]:
    """What the rules ask for; nothing where they hold."""
    if account.is_deleted:
        live = [one for one in occupants if one.desired is not DesiredState.DELETED]
        return [Verdict(one.id, Command.DELETE) for one in live]
    running = [one for one in occupants if one.desired is DesiredState.RUNNING]
    if not account.is_active:
        return [Verdict(one.id, Command.STOP, DEACTIVATED) for one in running]
    last_used_first = sorted(running, key=lambda one: (one.used_at, one.id), reverse=True)
    beyond = last_used_first[PLAN_LIMITS[account.plan].environments :]
    return [Verdict(one.id, Command.STOP, no_room(account.plan)) for one in beyond]


def require_room(plan: Plan, environment_id: str, occupants: Collection[Occupant]) -> None:
    """Raises QuotaExceededError when as many others as the plan allows are wanted running."""
    others = sum(one.desired is DesiredState.RUNNING and one.id != environment_id for one in occupants)
    if others >= PLAN_LIMITS[plan].environments:
        raise QuotaExceededError(no_room(plan))


def no_room(plan: Plan) -> str:
    """The sentence for who may not run another one."""
    limit = PLAN_LIMITS[plan].environments
    environments = "environment" if limit == 1 else "environments"
    return f"Your {plan} plan runs {limit} {environments} at a time; stop another one to start this one"
