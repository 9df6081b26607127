"""What every service knows of a user: plans and what they allow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Plan(StrEnum):
    """Subscription plans. `admin` is also the role that opens the admin API."""

    FREE = "free"
    STARTER = "starter"
    PRO = "pro"
    ADMIN = "admin"


class Scope(StrEnum):
    """What an API key may do. Each of the others includes `read`; accounts are changed by who signed in only.

    read: see what is the owner's. environments: create, change, start, stop and delete environments. terminal: open
    terminals. admin: the admin API, while the owner is an administrator.
    """

    READ = "read"
    ENVIRONMENTS = "environments"
    TERMINAL = "terminal"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """`environments` per user; the others per environment, as Kubernetes quantities."""

    environments: int
    cpu: str
    memory: str
    storage: str


PLAN_LIMITS: dict[Plan, PlanLimits] = {
    Plan.FREE: PlanLimits(1, "500m", "1Gi", "5Gi"),
    Plan.STARTER: PlanLimits(3, "1000m", "2Gi", "10Gi"),
    Plan.PRO: PlanLimits(10, "2000m", "4Gi", "20Gi"),
    Plan.ADMIN: PlanLimits(100, "4000m", "8Gi", "50Gi"),
}
