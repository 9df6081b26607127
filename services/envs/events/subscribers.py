"""What this service listens to. Tell the service; the outcome is acknowledged by the delivery policy."""

from __future__ import annotations

from libs.common.contracts.clusters import ClusterState
from libs.common.contracts.events import (
    RuntimeDelayed,
    RuntimeDeleted,
    RuntimeFailed,
    RuntimeReport,
    RuntimeRunning,
    RuntimeStopped,
    TerminalSessionOpened,
)
from libs.common.contracts.users import UserState
from libs.common.errors import PermanentError
from libs.common.messaging.subscriptions import Delivery, Subscription
from libs.common.security.identities import USERS_SUBJECT, Identities
from services.envs.service.owners import OwnerService
from services.envs.service.regions import RegionService
from services.envs.service.reports import ReportService

_TOLD = (RuntimeRunning, RuntimeDelayed, RuntimeFailed, RuntimeStopped, RuntimeDeleted)


def subscriptions(
    reports: ReportService, identities: Identities, regions: RegionService, owners: OwnerService | None
) -> list[Subscription]:
    """Everything that reaches this service by the event stream.

    `owners` acts upon what happens to accounts; None in a replay, where its wishes come from the stream.
    """

    async def on_runtime(delivery: Delivery) -> None:
        if not isinstance(delivery.data, RuntimeReport):
            raise PermanentError(f"{delivery.event.type} is no report of the runtime")
        await reports.apply(delivery.data, delivery.sequence)

    async def on_user(delivery: Delivery) -> None:
        await identities.apply(delivery.data)
        if owners is not None and isinstance(delivery.data, UserState):
            await owners.account_told(delivery.data)

    async def on_terminal(delivery: Delivery) -> None:
        if isinstance(delivery.data, TerminalSessionOpened):
            await reports.opened_terminal(delivery.data.environment_id, delivery.event.time)

    async def on_cluster(delivery: Delivery) -> None:
        if isinstance(delivery.data, ClusterState):
            await regions.keep(delivery.data)

    return [
        Subscription("runtime", "devpocket.runtime.*.*", on_runtime, _TOLD),
        Subscription("users", USERS_SUBJECT, on_user),
        Subscription("terminal", "devpocket.terminal.*.*", on_terminal),
        Subscription("clusters", "devpocket.cluster.*.*", on_cluster),
    ]
