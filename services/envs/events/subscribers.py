"""What this service listens to. Tell the service; the outcome is acknowledged by the delivery policy."""

from __future__ import annotations

from libs.common.contracts.clusters import ClusterState
from libs.common.contracts.events import RuntimeReport, TerminalSessionOpened
from libs.common.contracts.users import UserState
from libs.common.errors import PermanentError
from libs.common.messaging.subscriptions import Delivery, Subscription
from services.envs.service.accounts import AccountService
from services.envs.service.regions import RegionService
from services.envs.service.reports import ReportService


def subscriptions(reports: ReportService, accounts: AccountService, regions: RegionService) -> list[Subscription]:
    """Everything that reaches this service by the event stream."""

    async def on_runtime(delivery: Delivery) -> None:
        if not isinstance(delivery.data, RuntimeReport):
            raise PermanentError(f"{delivery.event.type} is no report of the runtime")
        await reports.apply(delivery.data, delivery.sequence)

    async def on_user(delivery: Delivery) -> None:
        if isinstance(delivery.data, UserState):
            await accounts.keep(delivery.data)

    async def on_terminal(delivery: Delivery) -> None:
        if isinstance(delivery.data, TerminalSessionOpened):
            await reports.opened_terminal(delivery.data.environment_id, delivery.event.time)

    async def on_cluster(delivery: Delivery) -> None:
        if isinstance(delivery.data, ClusterState):
            await regions.keep(delivery.data)

    return [
        Subscription("runtime", "devpocket.runtime.*.*", on_runtime),
        Subscription("users", "devpocket.user.*.*", on_user),
        Subscription("terminal", "devpocket.terminal.*.*", on_terminal),
        Subscription("clusters", "devpocket.cluster.*.*", on_cluster),
    ]
