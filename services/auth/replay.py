"""What the stream says about accounts, and what everybody's deeds were, for `devpocket events replay`."""

from __future__ import annotations

from datetime import timedelta

from libs.common.contracts.users import UserState
from libs.common.history.replay import EventClock, ReadModel, ReplayTarget
from libs.common.messaging.subscriptions import Delivery, Subscription
from libs.common.mongo import Database
from services.auth.events import audit_subscription
from services.auth.repository import MongoAudit, recall_user
from services.auth.service.audit import AuditService
from services.auth.settings import AuthSettings


def replay_target(database: Database, clock: EventClock) -> ReplayTarget:
    """See TargetFactory. Addresses, hashes and sign-ins are in no event and are not replayed, and no mails are sent."""
    users = database["users"]
    trail = MongoAudit(database, retention=timedelta(days=AuthSettings().audit_retention_days))

    async def on_own_state(delivery: Delivery) -> None:
        if isinstance(delivery.data, UserState):
            await recall_user(users, delivery.data)

    return ReplayTarget(
        service="auth",
        subscriptions=[audit_subscription(AuditService(trail))],
        own=[Subscription("users", "devpocket.user.*.*", on_own_state)],
        models=[
            ReadModel("users", ("username", "plan", "is_active", "is_verified", "session_epoch")),
            ReadModel("audit", ("at", "action", "actor", "address", "subject", "user_id", "details")),
        ],
        prepare=trail.prepare,
    )
