"""The service on a scratch database, for `devpocket events replay`: read models and sessions, without shells."""

from __future__ import annotations

from libs.common.contracts.events import TerminalSessionClosed, TerminalSessionOpened
from libs.common.history.replay import EventClock, ReadModel, ReplayTarget
from libs.common.messaging.outbox import OutboxRelay
from libs.common.messaging.subscriptions import Delivery, Subscription
from libs.common.mongo import Database
from services.terminal.domain import CloseReason
from services.terminal.events import subscriptions
from services.terminal.ports import ClosedSession, OpenedSession
from services.terminal.repository import MongoClusters, MongoEnvironments, MongoSessions, MongoUsers
from services.terminal.service.accounts import Accounts
from services.terminal.settings import TerminalSettings

_NOBODY = ""
_ENVIRONMENT_FIELDS = (
    *("user_id", "desired", "wish_version", "wish_generation"),
    *("status", "status_version", "status_generation", "cluster"),
)
# What is sealed shows as a digest.
_CLUSTER_FIELDS = ("status", "health", "message", "connection_sealed", "version")
_USER_FIELDS = ("plan", "is_active", "is_verified", "is_deleted", "session_epoch", "version")
_KEY_FIELDS = ("user_id", "scopes", "expires_at", "secret_hash")
_SESSION_FIELDS = ("environment_id", "user_id", "state", "reason", "exit_code", "output_bytes")


def replay_target(database: Database, clock: EventClock) -> ReplayTarget:
    """See TargetFactory."""
    environments = MongoEnvironments(database, clock, tombstone_days=TerminalSettings().stream_max_age_days + 1)
    users = MongoUsers(database)
    sessions = MongoSessions(database, OutboxRelay.unheard().attach, clock)

    async def on_own_session(delivery: Delivery) -> None:
        data = delivery.data
        if isinstance(data, TerminalSessionOpened):
            at = delivery.event.time
            await sessions.opened(OpenedSession(data.session_id, data.environment_id, data.user_id, _NOBODY, at))
        elif isinstance(data, TerminalSessionClosed):
            await sessions.closed(
                ClosedSession(
                    id=data.session_id,
                    environment_id=data.environment_id,
                    user_id=data.user_id,
                    exit_code=data.exit_code,
                    reason=CloseReason(data.reason),
                    output_bytes=data.output_bytes,
                )
            )

    async def prepare() -> None:
        await environments.prepare()
        await users.prepare()
        await sessions.prepare()

    return ReplayTarget(
        service="terminal",
        subscriptions=subscriptions(environments, MongoClusters(database), Accounts(users, sessions)),
        own=[Subscription("sessions", "devpocket.terminal.*.*", on_own_session)],
        models=[
            ReadModel("environments", _ENVIRONMENT_FIELDS, environment_field="_id"),
            ReadModel("clusters", _CLUSTER_FIELDS),
            ReadModel("users", _USER_FIELDS),
            ReadModel("api_keys", _KEY_FIELDS),
            ReadModel("sessions", _SESSION_FIELDS, environment_field="environment_id"),
        ],
        prepare=prepare,
    )
