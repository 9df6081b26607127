"""The service on a scratch database, for `devpocket events replay`: wishes are kept, and nobody works on them."""

from __future__ import annotations

from datetime import timedelta

from libs.common.contracts.events import RuntimeLost, RuntimeProvisioning, RuntimeReport, RuntimeRunning
from libs.common.history.replay import EventClock, ReadModel, ReplayTarget
from libs.common.messaging.outbox import OutboxRelay
from libs.common.messaging.subscriptions import Delivery, Subscription
from libs.common.mongo import Database
from libs.common.security.identities import Identities
from services.orchestrator.domain.model import SAID, Reported
from services.orchestrator.events import subscriptions
from services.orchestrator.repository import COLLECTION, SERVICE, MongoEnvironments
from services.orchestrator.service.wishes import Wishes
from services.orchestrator.settings import OrchestratorSettings

_FIELDS = (
    *("user_id", "name", "region", "desired", "generation", "version", "spec"),
    *("observed.said", "observed.generation", "observed.reason", "observed.message", "cluster"),
)
_USER_FIELDS = ("plan", "is_active", "is_verified", "is_deleted", "session_epoch", "version")
_KEY_FIELDS = ("user_id", "scopes", "expires_at", "secret_hash")


def replay_target(database: Database, clock: EventClock) -> ReplayTarget:
    """See TargetFactory."""
    collection = database[COLLECTION]
    store = MongoEnvironments(
        collection,
        OutboxRelay.unheard().attach(collection),
        tombstone_life=timedelta(days=OrchestratorSettings().stream_max_age_days + 1),
    )

    identities = Identities(database)

    async def prepare() -> None:
        await store.create_indexes()
        await identities.prepare()

    async def on_own_report(delivery: Delivery) -> None:
        report = delivery.data
        if isinstance(report, RuntimeReport) and type(report) in SAID:
            said = SAID[type(report)]
            reported = Reported(said, report.generation, report.reason, report.message, delivery.event.time)
            # The others may be about one that was never placed anywhere.
            is_placed = isinstance(report, RuntimeProvisioning | RuntimeRunning | RuntimeLost)
            await store.recall(report.environment_id, reported, report.cluster if is_placed else None)

    return ReplayTarget(
        service=SERVICE,
        subscriptions=subscriptions(Wishes(store, lambda _: None, clock), identities),
        own=[Subscription("reports", "devpocket.runtime.*.*", on_own_report)],
        models=[
            ReadModel(COLLECTION, _FIELDS, environment_field="_id"),
            ReadModel("users", _USER_FIELDS),
            ReadModel("api_keys", _KEY_FIELDS),
        ],
        prepare=prepare,
    )
