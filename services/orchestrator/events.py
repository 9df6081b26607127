"""The bus as the orchestrator sees it: wishes come in, usage samples go out, and history can be asked."""

from __future__ import annotations

from nats.js.errors import NotFoundError

from libs.common.contracts.events import (
    EnvironmentCreated,
    EnvironmentDeleteRequested,
    EnvironmentRestartRequested,
    EnvironmentStartRequested,
    EnvironmentStatusChanged,
    EnvironmentStopRequested,
    EnvironmentWish,
)
from libs.common.contracts.telemetry import UsageSample, usage_subject
from libs.common.errors import PermanentError
from libs.common.messaging.broker import Bus
from libs.common.messaging.streams import EVENTS_STREAM
from libs.common.messaging.subscriptions import Delivery, Subscription
from libs.common.security.identities import USERS_SUBJECT, Identities
from services.orchestrator.service.wishes import Wishes

_TOLD = (
    EnvironmentCreated,
    EnvironmentStartRequested,
    EnvironmentStopRequested,
    EnvironmentRestartRequested,
    EnvironmentDeleteRequested,
)


def subscriptions(wishes: Wishes, identities: Identities) -> list[Subscription]:
    """Hear what users want of their environments, and of users and their API keys."""

    async def on_environment(delivery: Delivery) -> None:
        data = delivery.data
        if isinstance(data, EnvironmentStatusChanged):
            return
        if not isinstance(data, EnvironmentWish):
            raise PermanentError(f"{delivery.event.type} is no wish")
        await wishes.accept(data)

    async def on_user(delivery: Delivery) -> None:
        await identities.apply(delivery.data)

    return [
        Subscription("environments", "devpocket.env.*.*", on_environment, _TOLD),
        Subscription("users", USERS_SUBJECT, on_user),
    ]


class NatsUsage:
    """`UsageSink` on core NATS."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def publish(self, sample: UsageSample) -> None:
        """Send it to whoever listens now."""
        await self._bus.client.publish(usage_subject(sample.environment_id), sample.model_dump_json().encode())


class StreamHistory:
    """`History` in the event stream."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def was_deleted(self, environment_id: str) -> bool:
        """Whether the stream holds a delete request for it."""
        subject = f"devpocket.env.{environment_id}.delete_requested"
        try:
            await self._bus.jetstream.get_last_msg(EVENTS_STREAM, subject)
        except NotFoundError:
            return False
        return True
