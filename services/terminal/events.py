"""Subscribers: the read models by durable consumers, and what concerns this replica's sockets by a plain one."""

from __future__ import annotations

import json

import structlog
from nats.aio.msg import Msg

from libs.common.contracts.events import Event
from libs.common.messaging.broker import Bus
from libs.common.messaging.subscriptions import IMPORTED_SEQUENCE, Delivery, Subscription
from services.terminal.ports import Clusters, Environments
from services.terminal.service.upkeep import Upkeep

_ENVIRONMENT_EVENTS = "devpocket.env.*.*"

log = structlog.get_logger(__name__)


def subscriptions(environments: Environments, clusters: Clusters) -> list[Subscription]:
    """Keep the read models; the replicas share the work."""

    async def on_environment(delivery: Delivery) -> None:
        await environments.apply(delivery.data)

    async def on_cluster(delivery: Delivery) -> None:
        await clusters.apply(delivery.data)

    return [
        Subscription("environments", _ENVIRONMENT_EVENTS, on_environment),
        Subscription("clusters", "devpocket.cluster.*.*", on_cluster),
    ]


async def subscribe_here(bus: Bus, upkeep: Upkeep) -> None:
    """Hear the same events in every replica, because each has to close sockets of its own. At most once is enough:
    the upkeep finds what was missed. Call after the bus has started."""

    async def on_message(message: Msg) -> None:
        if IMPORTED_SEQUENCE in (message.headers or {}):
            return
        try:
            data = Event.model_validate(json.loads(message.data)).payload()
            await upkeep.environment_event(data)
        except ValueError:
            # The durable consumer gets it too, and takes it to the dead letters.
            return
        except Exception as error:
            log.warning("event not acted upon, the upkeep will", subject=message.subject, error=repr(error))

    await bus.client.subscribe(_ENVIRONMENT_EVENTS, cb=on_message)
