"""The service on a scratch database, for `devpocket events replay`: its handlers, and nobody to hear what they say."""

from __future__ import annotations

from libs.common.contracts.events import EnvironmentStatusChanged, EnvironmentWish
from libs.common.contracts.users import OwnerEmptied
from libs.common.history.replay import EventClock, ReadModel, ReplayTarget
from libs.common.messaging.subscriptions import Delivery, Subscription
from libs.common.mongo import Database
from libs.common.security.identities import Identities
from services.envs.events.subscribers import subscriptions
from services.envs.repository import ClusterRepository, DepartureRepository, EnvironmentRepository
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
    *("variables_sealed", "status", "status_reason", "stop_reason", "desired", "generation", "report_sequence"),
    *("installation_completed", "last_accessed"),
)

_USER_FIELDS = ("plan", "is_active", "is_verified", "is_deleted", "session_epoch", "version", "emptied")


def replay_target(database: Database, clock: EventClock) -> ReplayTarget:
    """See TargetFactory."""
    environments = EnvironmentRepository(database, None)
    reports = ReportService(environments, clock)
    recalls = RecallService(environments)
    identities = Identities(database)
    departures = DepartureRepository(database, None)

    async def on_own_wish(delivery: Delivery) -> None:
        if isinstance(delivery.data, EnvironmentWish):
            await recalls.recall(delivery.data, delivery.event.time)
        elif isinstance(delivery.data, EnvironmentStatusChanged):
            await recalls.recall_reason(delivery.data)

    async def on_own_farewell(delivery: Delivery) -> None:
        if isinstance(delivery.data, OwnerEmptied):
            await departures.recall(delivery.data.user_id, delivery.data.environments)

    async def prepare() -> None:
        await identities.prepare()
        await environments.create_indexes()

    return ReplayTarget(
        service="envs",
        subscriptions=subscriptions(reports, identities, RegionService(ClusterRepository(database)), None),
        own=[
            Subscription("wishes", "devpocket.env.*.*", on_own_wish),
            Subscription("farewells", "devpocket.owner.*.*", on_own_farewell),
        ],
        models=[
            ReadModel("environments", _ENVIRONMENT_FIELDS, environment_field="_id"),
            ReadModel("users", _USER_FIELDS),
            ReadModel("api_keys", ("user_id", "scopes")),
            ReadModel("clusters", ("region", "is_default", "status", "version")),
        ],
        prepare=prepare,
    )
