"""What every service knows of a user: plans and what they allow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

_MIB = 1024 * 1024


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
    """`environments` per user; `cpu`, `memory` and `storage` per environment, as Kubernetes quantities.

    `connections`: terminals and logs that a user has open together; `messages_per_second` over all of them, on average.
    `largest_file_bytes`: of one upload into a workspace, and of what an uploaded archive unpacks to.
    """

    environments: int
    cpu: str
    memory: str
    storage: str
    connections: int
    messages_per_second: int
    largest_file_bytes: int


PLAN_LIMITS: dict[Plan, PlanLimits] = {
    Plan.FREE: PlanLimits(
        1, "500m", "1Gi", "5Gi", connections=5, messages_per_second=200, largest_file_bytes=100 * _MIB
    ),
    Plan.STARTER: PlanLimits(
        3, "1000m", "2Gi", "10Gi", connections=10, messages_per_second=400, largest_file_bytes=1024 * _MIB
    ),
    Plan.PRO: PlanLimits(
        10, "2000m", "4Gi", "20Gi", connections=20, messages_per_second=1000, largest_file_bytes=5 * 1024 * _MIB
    ),
    Plan.ADMIN: PlanLimits(
        100, "4000m", "8Gi", "50Gi", connections=50, messages_per_second=2000, largest_file_bytes=5 * 1024 * _MIB
    ),
}
