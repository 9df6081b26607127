"""Subscribers: the read models by durable consumers, and what concerns this replica's sockets by a plain one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import structlog
from nats.aio.msg import Msg

from libs.common.contracts.events import EnvironmentStatusChanged, Event, EventData, TerminalSessionClosed
from libs.common.messaging.broker import Bus
from libs.common.messaging.subscriptions import IMPORTED_SEQUENCE, Delivery, Subscription
from libs.common.security.identities import USERS_SUBJECT
from services.terminal.ports import Clusters, Environments
from services.terminal.service.accounts import Accounts
from services.terminal.service.upkeep import Upkeep

_ENVIRONMENT_EVENTS = "devpocket.env.*.*"
_USER_ENDINGS = ("devpocket.user.*.updated", "devpocket.user.*.deleted")

log = structlog.get_logger(__name__)


def subscriptions(environments: Environments, clusters: Clusters, accounts: Accounts) -> list[Subscription]:
    """Keep the read models, and what is stored of sessions; the replicas share the work."""

    async def on_environment(delivery: Delivery) -> None:
        await environments.apply(delivery.data)

    async def on_cluster(delivery: Delivery) -> None:
        await clusters.apply(delivery.data)

    async def on_user(delivery: Delivery) -> None:
        await accounts.user_event(delivery.data)

    async def on_session_closed(delivery: Delivery) -> None:
        if isinstance(delivery.data, TerminalSessionClosed):
            await accounts.session_closed(delivery.data)

    return [
        Subscription("environments", _ENVIRONMENT_EVENTS, on_environment, (EnvironmentStatusChanged,)),
        Subscription("clusters", "devpocket.cluster.*.*", on_cluster),
        Subscription("users", USERS_SUBJECT, on_user),
        Subscription("sessions", "devpocket.terminal.*.session_closed", on_session_closed),
    ]


async def subscribe_here(bus: Bus, upkeep: Upkeep) -> None:
    """Hear the same events in every replica, because each has to close sockets of its own. At most once is enough:
    the upkeep finds what was missed. Call after the bus has started."""

    def passing_to(act: Callable[[EventData], Awaitable[None]]) -> Callable[[Msg], Awaitable[None]]:
        async def on_message(message: Msg) -> None:
            if IMPORTED_SEQUENCE in (message.headers or {}):
                return
            try:
                data = Event.model_validate(json.loads(message.data)).payload()
                await act(data)
            except ValueError:
                # The durable consumer gets it too, and takes it to the dead letters.
                return
            except Exception as error:
                log.warning("event not acted upon, the upkeep will", subject=message.subject, error=repr(error))

        return on_message

    await bus.client.subscribe(_ENVIRONMENT_EVENTS, cb=passing_to(upkeep.environment_event))
    for subject in _USER_ENDINGS:
        await bus.client.subscribe(subject, cb=passing_to(upkeep.user_event))
