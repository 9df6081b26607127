"""The service on a scratch database, for `devpocket events replay`: its handlers, and nobody to hear what they say."""

from __future__ import annotations

from libs.common.contracts.events import EnvironmentWish
from libs.common.history.replay import EventClock, ReadModel, ReplayTarget
from libs.common.messaging.subscriptions import Delivery, Subscription
from libs.common.mongo import Database
from services.envs.events.subscribers import subscriptions
from services.envs.repository import AccountRepository, ClusterRepository, EnvironmentRepository
from services.envs.service.accounts import AccountService
from services.envs.service.recall import RecallService
from services.envs.service.regions import RegionService
from services.envs.service.reports import ReportService

# Left out: what the stream does not tell (description, usage), or tells otherwise (when and how often was written).
_ENVIRONMENT_FIELDS = (
    *(
        "user_id",
        "name",
        "template",
        "image",
        "image_pull_policy",
        "cluster",
        "web_port",
        "resources",
        "region",
        "startup_command",
    ),
    *("variables_sealed", "status", "status_reason", "desired", "generation", "report_sequence"),
    *("installation_completed", "last_accessed"),
)


def replay_target(database: Database, clock: EventClock) -> ReplayTarget:
    """See TargetFactory."""
    environments = EnvironmentRepository(database, None)
    reports = ReportService(environments, clock)
    recalls = RecallService(environments)
    accounts = AccountService(AccountRepository(database))

    async def on_own_wish(delivery: Delivery) -> None:
        if isinstance(delivery.data, EnvironmentWish):
            await recalls.recall(delivery.data, delivery.event.time)

    return ReplayTarget(
        service="envs",
        subscriptions=subscriptions(reports, accounts, RegionService(ClusterRepository(database))),
        own=[Subscription("wishes", "devpocket.env.*.*", on_own_wish)],
        models=[
            ReadModel("environments", _ENVIRONMENT_FIELDS, environment_field="_id"),
            ReadModel("users", ("plan", "is_active", "is_verified", "version")),
            ReadModel("clusters", ("region", "is_default", "status", "version")),
        ],
        prepare=environments.create_indexes,
    )
