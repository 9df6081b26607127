"""What the stream says about accounts, for `devpocket events replay`: this service hears nobody but itself."""

from __future__ import annotations

from libs.common.contracts.users import UserState
from libs.common.history.replay import EventClock, ReadModel, ReplayTarget
from libs.common.messaging.subscriptions import Delivery, Subscription
from libs.common.mongo import Database
from services.auth.repository import recall_user


def replay_target(database: Database, clock: EventClock) -> ReplayTarget:
    """See TargetFactory. Addresses, hashes and sign-ins are in no event and are not replayed."""
    users = database["users"]

    async def on_own_state(delivery: Delivery) -> None:
        if isinstance(delivery.data, UserState):
            await recall_user(users, delivery.data)

    async def prepare() -> None:
        """All access is by id."""

    return ReplayTarget(
        service="auth",
        subscriptions=[],
        own=[Subscription("users", "devpocket.user.*.*", on_own_state)],
        models=[ReadModel("users", ("username", "plan", "is_active", "is_verified"))],
        prepare=prepare,
    )
